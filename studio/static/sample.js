/** Sample: images that show a painted mask. */

import { base64, cancelJob, postJob } from "./api.js";
import { Easel } from "./easel.js";
import { jobState } from "./jobs.js";
import { NONE, composed } from "./mask.js";
import { h, latest, percent, sampleFields } from "./parts.js";

/** @typedef {import("./session.js").Job} Job */

export class SampleScreen {
  kinds = ["sample"];

  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.waiting = 0;
    this.begun = false;
    this.easel = new Easel(app, "The mask to show", { counts: false, adopts: false });
    this.editor = this.easel.editor;
    this.editor.opacity = 1;
    this.editor.overlay.opaque();
    this.easel.opacity?.set(100);
    this.root = h("div", { class: "sample" }, this.makeSide(), this.makeCentre());
    this.renewFrame = latest(() => this.frame());
    app.session.on("job", (job) => this.told(job));
  }

  makeSide() {
    this.fields = sampleFields("Begin with the mask of", this.app.session);
    const use = () => this.app.attempt(() => this.begin(this.fields?.value ?? ""));
    const blank = () => this.load(new Uint8Array(this.editor.size ** 2).fill(0));
    this.count = h("input", { type: "number", min: 1, max: 8, value: 4 });
    this.steps = h("input", { type: "number", min: 1, max: 200, value: 50 });
    return h(
      "aside",
      { class: "panel", "aria-label": "Mask and classes" },
      h("h2", {}, "Begin with"),
      this.fields.root,
      h("button", { type: "button", onclick: use }, "Its mask"),
      h("button", { type: "button", onclick: blank }, `All ${this.app.session.state.classes[0].name}`),
      h("h2", {}, "Paint with"),
      this.easel.palette,
      this.easel.choices,
      h("label", { class: "field" }, "Images ", this.count),
      h("label", { class: "field" }, "Steps ", this.steps),
      h("button", { type: "button", class: "main", title: "Ctrl+Enter", onclick: () => this.run() }, "Sample"),
    );
  }

  makeCentre() {
    this.bar = h("progress", { hidden: true, max: 1, value: 0, "aria-label": "Steps of the samples" });
    this.words = h("p", { class: "hint" }, "Nothing has been run here yet.");
    const end = () => this.app.attempt(() => cancelJob(this.waiting));
    this.end = h("button", { type: "button", hidden: true, onclick: end }, "Cancel");
    this.images = h("ul", { class: "images", "aria-label": "Samples" });
    return h(
      "div",
      { class: "centre two" },
      h("div", {}, h("h2", {}, "Mask"), this.easel.root),
      h(
        "div",
        {},
        h("h2", {}, "Images that show it"),
        h("div", { class: "progress" }, this.bar, this.end, this.words),
        this.images,
      ),
    );
  }

  shown() {
    if (!this.begun) this.app.attempt(() => this.begin("pool-0"));
  }

  /** The mask of a sample, to be changed. @param {string} sample */
  async begin(sample) {
    if (this.fields) this.fields.value = sample;
    this.load(await this.app.looks.mask(sample));
  }

  /** @param {Uint8Array} ids what shows where nothing is painted */
  load(ids) {
    this.begun = true;
    this.editor.load(new Uint8Array(ids.length).fill(NONE));
    this.editor.look(ids);
  }

  run() {
    const ids = composed(this.editor.mask.ids, this.editor.seen);
    const [count, steps] = [this.count?.valueAsNumber, this.steps?.valueAsNumber];
    this.app.attempt(async () => {
      this.waiting = await postJob({ kind: "sample", mask: base64(ids), count, steps });
      this.images?.replaceChildren();
      const known = this.app.session.jobs.get(this.waiting);
      if (known) this.told(known);
    });
  }

  /** @param {Job} job */
  told(job) {
    if (job.id !== this.waiting || !this.bar || !this.words || !this.end) return;
    this.bar.hidden = false;
    this.bar.max = job.progress?.of ?? 1;
    this.bar.value = job.state === "done" ? this.bar.max : (job.progress?.step ?? 0);
    this.end.hidden = job.state !== "queued" && job.state !== "running";
    this.words.textContent = jobState(job);
    if (job.state === "running" && job.progress?.frame != null) this.renewFrame();
    if (job.state === "done") this.show(job);
  }

  async frame() {
    const job = this.app.session.jobs.get(this.waiting);
    if (job?.state !== "running" || !job.progress) return;
    const src = `/api/jobs/${job.id}/frame.jpg?step=${job.progress.frame}`;
    const image = h("img", { src, alt: "The images on the way" });
    await image.decode().catch(() => {});
    if (this.app.session.jobs.get(job.id)?.state === "running") this.images?.replaceChildren(h("li", {}, image));
  }

  /** @param {Job} job */
  show({ id, result }) {
    const items = result.agreements.map((/** @type {number} */ share, /** @type {number} */ i) =>
      h(
        "li",
        {},
        h("img", { src: `/api/edits/${id}/${i}.png`, alt: `Sample ${i + 1}` }),
        h("img", { src: `/api/edits/${id}/${i}_mask.png`, alt: `What the guide sees in sample ${i + 1}` }),
        h("span", {}, `${percent(share)} of the pixels as painted, says the guide`),
      ),
    );
    this.images?.replaceChildren(...items);
    if (this.words) this.words.textContent += ` · by the ${result.guide}`;
  }
}
