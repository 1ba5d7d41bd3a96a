/** Photo: a photograph becomes a sample by four points and an inversion, then it can be edited. */

import { postJob, postPhoto } from "./api.js";
import { jobState } from "./jobs.js";
import { byId, h, spoken } from "./parts.js";

const POINTS = ["eye at the left", "eye at the right", "mouth corner at the left", "mouth corner at the right"];

/** @typedef {import("./session.js").Job} Job */

export class PhotoScreen {
  kinds = ["invert"];

  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    /** @type {File | null} */
    this.file = null;
    /** @type {ImageBitmap | null} */
    this.image = null;
    this.at = 0; // the point that a click sets
    this.waiting = 0;
    this.photo = 0;
    this.root = h("div", { class: "photo" }, this.makeSide(), this.makeCentre());
    app.session.on("job", (job) => this.told(job));
    app.session.on("state", () => this.list());
    this.list();
  }

  makeSide() {
    const { photos_available } = this.app.session.state;
    const file = h("input", { type: "file", accept: "image/jpeg,image/png,image/webp", "aria-label": "Photograph" });
    file.addEventListener("change", () => file.files?.[0] && this.app.attempt(() => this.load(file.files?.[0])));
    this.inputs = POINTS.map((name, i) => {
      const axes = ["x", "y"].map((axis) => {
        const input = h("input", { type: "number", min: 0, "aria-label": `${name}, ${axis}` });
        input.addEventListener("input", () => this.draw());
        input.addEventListener("focus", () => (this.at = i));
        return input;
      });
      return axes;
    });
    const rows = this.inputs.map((axes, i) => h("li", {}, h("span", {}, POINTS[i]), ...axes));
    const send = (/** @type {boolean} */ automatic) => () => this.app.attempt(() => this.send(automatic));
    this.known = h("ul", { class: "edits", "aria-label": "Photographs" });
    return h(
      "aside",
      { class: "panel", "aria-label": "Photograph and points" },
      h("h2", {}, "Photograph"),
      ...(photos_available ? [] : [h("p", { class: "hint" }, "This study cannot invert photographs; the studio says why when one is sent.")]),
      file,
      h("h3", {}, "Points: click four times, or type"),
      h("ol", { class: "points" }, ...rows),
      h("button", { type: "button", class: "main", onclick: send(false) }, "Send with these points"),
      h("button", { type: "button", onclick: send(true) }, "Find the points and send"),
      h("h3", {}, "Photographs of this session"),
      this.known,
    );
  }

  makeCentre() {
    this.canvas = h("canvas", { class: "photo-canvas", width: 640, height: 480, role: "img", "aria-label": "Photograph" });
    this.canvas.addEventListener("click", (event) => this.click(event));
    this.answer = h("p", { role: "status", class: "hint" }, "Choose a JPEG, PNG or WebP file of up to 20 MB.");
    this.bar = h("progress", { hidden: true, max: 1, value: 0, "aria-label": "Steps of the inversion" });
    this.compare = h("div", { class: "compare" });
    return h("div", { class: "centre" }, h("h2", {}, "Points"), this.canvas, this.answer, this.bar, this.compare);
  }

  /** @param {File | undefined} file */
  async load(file) {
    if (!file) return;
    this.image = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => {
      throw new Error(`Got ${file.name}; wanted a JPEG, PNG or WebP image; choose another file.`);
    });
    [this.file, this.at] = [file, 0];
    for (const input of this.inputs?.flat() ?? []) input.value = "";
    if (this.answer) this.answer.textContent = `Click on the ${POINTS[0]} of the picture.`;
    this.draw();
  }

  /** Screen px per px of the photograph. */
  get scale() {
    return this.image && this.canvas ? Math.min(this.canvas.width / this.image.width, this.canvas.height / this.image.height) : 1;
  }

  draw() {
    const context = this.canvas?.getContext("2d");
    if (!context || !this.canvas || !this.image) return;
    const scale = this.scale;
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.image, 0, 0, this.image.width * scale, this.image.height * scale);
    this.inputs?.forEach(([x, y], i) => {
      if (!x.value || !y.value) return;
      const [cx, cy] = [x.valueAsNumber * scale, y.valueAsNumber * scale];
      for (const [radius, color] of /** @type {[number, string][]} */ ([[7, "#000"], [5, "#fff"], [2, "#d22"]])) {
        context.fillStyle = color;
        context.beginPath();
        context.arc(cx, cy, radius, 0, 7);
        context.fill();
      }
      context.font = "14px sans-serif";
      context.fillText(`${i + 1}`, cx + 9, cy + 5);
    });
  }

  /** @param {MouseEvent} event */
  click(event) {
    if (!this.image || !this.canvas || !this.inputs || !this.answer) return;
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width / this.scale;
    const [x, y] = this.inputs[this.at];
    x.value = String(Math.round((event.clientX - box.left) * ratio));
    y.value = String(Math.round((event.clientY - box.top) * ratio));
    this.at = (this.at + 1) % POINTS.length;
    const next = this.inputs.some(([one]) => !one.value);
    this.answer.textContent = next ? `Click on the ${POINTS[this.at]}.` : "All four points are set.";
    this.draw();
  }

  /** @param {boolean} automatic */
  async send(automatic) {
    if (!this.file) throw new Error("Got no file; wanted a photograph; choose one first.");
    const points = this.inputs?.map(([x, y]) => /** @type {[number, number]} */ ([x.valueAsNumber, y.valueAsNumber]));
    if (!automatic && points?.flat().some(Number.isNaN)) {
      throw new Error("Got fewer than four points; wanted two eyes and two mouth corners; click on them.");
    }
    const found = await postPhoto(this.file, automatic ? null : (points ?? null));
    found.points.forEach((/** @type {[number, number]} */ point, /** @type {number} */ i) => {
      point.forEach((value, axis) => this.inputs && (this.inputs[i][axis].value = String(Math.round(value))));
    });
    this.draw();
    this.photo = found.id;
    this.app.session.state.photos.push({ id: found.id, state: "uploaded" });
    this.list();
    this.aligned(found.id);
  }

  /** The crop, to be looked at before an inversion. @param {number} id */
  aligned(id) {
    const invert = async () => (this.waiting = await postJob({ kind: "invert", photo: id }));
    this.compare?.replaceChildren(
      h("figure", {}, h("img", { src: `/api/photos/${id}/aligned.jpg`, alt: "Aligned photograph" }), h("figcaption", {}, "Aligned")),
      h("button", { type: "button", class: "main", onclick: () => this.app.attempt(invert) }, "Invert"),
    );
  }

  run() {
    if (this.photo) this.app.attempt(async () => (this.waiting = await postJob({ kind: "invert", photo: this.photo })));
    else this.app.attempt(() => this.send(this.inputs?.some(([x]) => !x.value) ?? true));
  }

  /** @param {Job} job */
  told(job) {
    if (job.kind !== "invert") return;
    const photo = this.app.session.state.photos.find(({ id }) => id === job.request.photo);
    if (job.state === "done" && photo) {
      photo.state = "inverted";
      this.list();
    }
    if (job.id !== this.waiting || !this.bar || !this.answer) return;
    this.bar.hidden = false;
    this.bar.max = job.progress?.of ?? 1;
    this.bar.value = job.state === "done" ? this.bar.max : (job.progress?.step ?? 0);
    this.answer.textContent = jobState(job);
    if (job.state === "done") this.inverted(job.result.sample, job.request.photo);
  }

  /** @param {string} sample @param {number} photo */
  inverted(sample, photo) {
    const edit = () => this.app.open("edit", sample);
    const figure = (/** @type {string} */ src, /** @type {string} */ name) =>
      h("figure", {}, h("img", { src, alt: name }), h("figcaption", {}, name));
    this.compare?.replaceChildren(
      figure(`/api/photos/${photo}/aligned.jpg`, "Aligned"),
      figure(`/api/samples/${sample}/image.jpg`, "Inverted"),
      h("button", { type: "button", class: "main", onclick: edit }, "Edit it"),
    );
  }

  list() {
    const { photos } = this.app.session.state;
    const entries = photos.map(({ id, state }) => {
      const open = () => (state === "inverted" ? this.inverted(`photo-${id}`, id) : this.aligned(id));
      return h("li", {}, h("button", { type: "button", onclick: () => ((this.photo = id), open()) }, `${spoken(`photo-${id}`)}: ${state}`));
    });
    this.known?.replaceChildren(...(entries.length ? entries : [h("li", {}, "None yet.")]));
    byId("photo").dataset.photos = String(photos.length);
  }
}
