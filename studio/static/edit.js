/** Edit: paint on the mask of a sample what should be there, and get an image that follows. */

import { base64, postJob } from "./api.js";
import { Easel } from "./easel.js";
import { NONE } from "./mask.js";
import { Result } from "./result.js";
import { counted, h, latest, lookCanvas, sampleFields, spoken } from "./parts.js";
import { show } from "./overlay.js";

/** @typedef {import("./session.js").Job} Job */

export class EditScreen {
  kinds = ["edit", "transfer"];

  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.source = "";
    this.easel = new Easel(app, "What should be seen", { counts: false, adopts: false });
    this.editor = this.easel.editor;
    this.result = new Result(app, (sample) => this.app.attempt(() => this.open(sample)));
    this.easel.onCompare = (on) => this.result.hold(on);
    this.root = h("div", { class: "edit" }, this.makeSource(), this.makeCentre(), this.makeSide());
    this.editor.addEventListener("stroke", () => this.count());
    this.renewMask = latest(() => this.mask());
    app.session.on("extractor", () => app.active === "edit" && this.renewMask());
    app.session.on("job", (job) => this.told(job));
    app.session.on("state", () => this.tree());
    this.tree();
  }

  makeSource() {
    this.fields = sampleFields("Source", this.app.session);
    const use = () => this.app.attempt(() => this.open(this.fields?.value ?? ""));
    this.before = lookCanvas(256, "Before");
    this.edits = h("ul", { class: "edits", "aria-label": "Earlier edits" });
    return h(
      "aside",
      { class: "panel", "aria-label": "Source" },
      h("h2", {}, "Source"),
      this.fields.root,
      h("button", { type: "button", onclick: use }, "Use it"),
      this.before,
      h("h3", {}, "Edits"),
      this.edits,
    );
  }

  makeCentre() {
    this.heading = h("h2", {}, "Paint");
    return h(
      "div",
      { class: "centre two" },
      h("div", {}, this.heading, this.easel.root),
      h("div", {}, h("h2", {}, "Result"), this.result.root),
    );
  }

  makeSide() {
    this.region = h("p", { class: "hint", role: "status" });
    this.steps = h("input", { type: "number", min: 1, max: 200, value: 50 });
    this.button = h(
      "button",
      { type: "button", class: "main", title: "Ctrl+Enter", onclick: () => this.run() },
      "Run edit",
    );
    return h(
      "aside",
      { class: "panel", "aria-label": "Classes and edit" },
      h("h2", {}, "Paint with"),
      this.easel.palette,
      this.easel.choices,
      this.region,
      h("label", { class: "field" }, "Steps ", this.steps),
      this.button,
      h("button", { type: "button", onclick: () => this.clear() }, "Clear the paint"),
    );
  }

  /** @param {string} [sample] to edit */
  shown(sample) {
    if (sample || !this.source) {
      const { pool, suggested } = this.app.session.state;
      const first = suggested[0] ?? pool[0].row;
      this.app.attempt(() => this.open(sample ?? `pool-${first}`));
    } else this.renewMask();
  }

  /** Another source: nothing that was painted stays. @param {string} sample */
  async open(sample) {
    const { looks } = this.app;
    const image = await looks.preview(sample);
    this.source = sample;
    if (this.fields) this.fields.value = sample;
    if (this.heading) this.heading.textContent = `Paint on ${spoken(sample)}`;
    [this.editor.image, this.editor.seen] = [image, null];
    this.clear();
    if (this.before) show(this.before, image, null, [], 1);
    this.renewMask();
    const whole = await looks.image(sample);
    if (this.source !== sample) return;
    this.editor.image = whole;
    this.editor.draw();
    if (this.before) show(this.before, whole, null, [], 1);
  }

  clear() {
    this.editor.load(new Uint8Array(this.editor.size ** 2).fill(NONE));
    this.count();
  }

  async mask() {
    const source = this.source;
    if (!source) return;
    const seen = await this.app.looks.mask(source).catch(() => null);
    if (!seen || source !== this.source) return;
    this.editor.look(seen);
    this.count();
  }

  /** Pixels that are asked to change: painted minus what is there. */
  count() {
    const { seen, mask } = this.editor;
    const pixels = mask.ids.reduce((n, id, p) => n + Number(id !== NONE && id !== seen?.[p]), 0);
    const guide = this.app.session.state.extractor.title;
    const text = pixels ? `${counted(pixels, "pixel")} to change, by the ${guide}.` : "Paint what should be there.";
    if (this.region) this.region.textContent = text;
  }

  /** N and P. @param {number} by */
  next(by) {
    const [kind, number] = this.source.split("-");
    const count = this.app.session.state.pool.length;
    const turn = kind === "pool" ? (Number(number) + by + count) % count : Number(number) + by;
    if (turn >= 0) this.app.attempt(() => this.open(`${kind}-${turn}`));
  }

  run() {
    const mask = base64(this.editor.mask.ids);
    const steps = this.steps?.valueAsNumber;
    this.app.attempt(async () => {
      const id = await postJob({ kind: "edit", source: this.source, mask, steps });
      this.result.wait(id);
    });
  }

  /** @param {Job} job */
  told(job) {
    if (job.kind !== "edit" && job.kind !== "transfer") return;
    if (job.state === "done") this.tree();
    this.result.told(job);
  }

  /** Edits that are done, below what they were made of. */
  tree() {
    const jobs = [...this.app.session.jobs.values()].filter(
      ({ kind, state }) => (kind === "edit" || kind === "transfer") && state === "done",
    );
    const made = new Set(jobs.map(({ result }) => result.sample));
    const below = (/** @type {(job: Job) => boolean} */ chosen) => jobs.filter(chosen).map((job) => this.branch(job, jobs));
    this.edits?.replaceChildren(...below(({ result }) => !made.has(result.source)));
    if (!jobs.length) this.edits?.append(h("li", {}, "None yet."));
  }

  /** @param {Job} job @param {Job[]} jobs @returns {HTMLLIElement} */
  branch(job, jobs) {
    const { sample, source } = job.result;
    const text = job.kind === "edit" ? spoken(sample) : `${spoken(sample)}: ${job.request.edit} added`;
    const open = () => this.app.attempt(() => this.result.show(job));
    const label = `${text}, of ${spoken(source)}`;
    const button = h("button", { type: "button", title: label, onclick: open }, `${text} ← ${source}`);
    const children = jobs.filter(({ result }) => result.source === sample);
    const list = h("ul", {}, ...children.map((child) => this.branch(child, jobs)));
    return h("li", {}, button, ...(children.length ? [list] : []));
  }
}
