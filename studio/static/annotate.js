/** Annotate: paint a few samples of the pool, and see what the extractor makes of it. */

import { postJob } from "./api.js";
import { Easel } from "./easel.js";
import { NONE, merge } from "./mask.js";
import { show } from "./overlay.js";
import { byId, counted, h, latest, lookCanvas, spoken } from "./parts.js";
import { Drawing } from "./session.js";

export class AnnotateScreen {
  kinds = ["fit", "export"];

  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.row = -1;
    /** @type {Map<number, Drawing>} rows that were opened */
    this.drawings = new Map();
    this.easel = new Easel(app, "Annotation of a sample", { counts: true, adopts: true });
    this.editor = this.easel.editor;
    this.heading = h("h2", {}, "Sample");
    this.root = h("div", { class: "annotate" }, this.makePool(), this.makeCentre(), this.makeSide());
    this.editor.addEventListener("stroke", (event) =>
      this.stroked(/** @type {CustomEvent} */ (event).detail),
    );
    const { session } = app;
    this.renewMask = latest(() => this.mask());
    this.renewUnseen = latest(() => this.unseen());
    session.on("extractor", () => this.refitted());
    session.on("state", () => this.renewed());
    session.on("annotation", ({ row }) => this.elsewhere(row));
    session.on("merged", (drawing) => this.merged(drawing));
    this.list();
  }

  makePool() {
    this.suggested = h("p", { class: "suggested" });
    this.pool = h("ul", { class: "pool", "aria-label": "Pool" });
    const { pool } = this.app.session.state;
    const watch = new IntersectionObserver((entries) => entries.forEach((e) => this.thumbnail(e)));
    /** @type {{button: HTMLButtonElement, text: HTMLElement}[]} */
    this.items = pool.map(({ row, sample }) => {
      const image = lookCanvas(64, spoken(sample));
      image.dataset.sample = sample;
      watch.observe(image);
      const text = h("span");
      const onclick = () => this.app.attempt(() => this.open(row));
      const button = h("button", { type: "button", onclick }, image, text);
      this.pool?.append(h("li", {}, button));
      return { button, text };
    });
    return h(
      "aside",
      { class: "panel", "aria-label": "Samples" },
      h("h2", {}, "Pool"),
      this.suggested,
      this.pool,
    );
  }

  /** @param {IntersectionObserverEntry} entry */
  async thumbnail({ target, isIntersecting }) {
    const canvas = /** @type {HTMLCanvasElement} */ (target);
    const { sample } = canvas.dataset;
    if (!isIntersecting || !sample) return;
    delete canvas.dataset.sample;
    const image = await this.app.looks.preview(sample).catch(() => null);
    if (image) show(canvas, image, null, [], 1);
    else canvas.dataset.sample = sample;
  }

  makeCentre() {
    const { unseen } = this.app.session.state;
    this.six = unseen.map((sample) => lookCanvas(128, `What is seen in ${spoken(sample)}`));
    const items = this.six.map((canvas, i) =>
      h("li", {}, canvas, h("span", {}, spoken(unseen[i]))),
    );
    return h(
      "div",
      { class: "centre" },
      this.heading,
      this.easel.root,
      h("h3", {}, "Samples that nobody annotates, as the extractor sees them"),
      h("ul", { class: "unseen", "aria-label": "Unseen samples" }, ...items),
    );
  }

  makeSide() {
    const run = () => this.run();
    const out = () => this.app.attempt(() => postJob({ kind: "export" }));
    return h(
      "aside",
      { class: "panel", "aria-label": "Classes and fit" },
      h("h2", {}, "Classes"),
      this.easel.palette,
      this.easel.choices,
      h("p", { class: "hint" }, "Pale: guessed by the extractor. Full and patterned: painted."),
      h("button", { type: "button", class: "main", title: "Ctrl+Enter", onclick: run }, "Fit now"),
      h("button", { type: "button", onclick: () => this.erase() }, "Erase this annotation"),
      h("button", { type: "button", onclick: out }, "Export for other tools"),
    );
  }

  /** Rows with their pixels, and which come next. */
  list() {
    const { pool, suggested } = this.app.session.state;
    this.items?.forEach(({ button, text }, i) => {
      const { row, labelled } = pool[i];
      text.textContent = `${row}${labelled ? ` · ${labelled} px` : ""}`;
      button.toggleAttribute("data-annotated", labelled > 0);
      button.toggleAttribute("data-suggested", suggested.includes(row));
      if (row === this.row) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
    const open = (/** @type {number} */ row) => () => this.app.attempt(() => this.open(row));
    const next = suggested.slice(0, 6).map((row) =>
      h("button", { type: "button", "aria-label": `Annotate row ${row} next`, onclick: open(row) }, `${row}`),
    );
    this.suggested?.replaceChildren(...(next.length ? ["Least sure of: ", ...next] : []));
  }

  shown() {
    const { pool, suggested } = this.app.session.state;
    if (this.row < 0) this.app.attempt(() => this.open(suggested[0] ?? pool[0].row));
    this.renewUnseen();
  }

  /** Annotate a row. @param {number} row */
  async open(row) {
    this.row = row;
    this.editor.enabled = false;
    this.heading.textContent = `Pool row ${row}`;
    this.editor.image = null;
    this.list();
    let drawing = this.drawings.get(row);
    if (!drawing) {
      drawing = new Drawing(this.app.session, row);
      await drawing.load();
      this.drawings.set(row, drawing);
    }
    if (this.row !== row) return;
    this.editor.seen = null;
    this.editor.load(drawing.ids);
    this.renewMask();
    const { looks } = this.app;
    for (const look of [looks.preview(`pool-${row}`), looks.image(`pool-${row}`)]) {
      const image = await look;
      if (this.row !== row) return;
      this.editor.image = image;
      this.editor.draw();
    }
  }

  /** @param {number} by */
  next(by) {
    const count = this.app.session.state.pool.length;
    this.app.attempt(() => this.open((this.row + by + count) % count));
  }

  /** A stroke, or its undoing. @param {Uint8Array} before */
  stroked(before) {
    const drawing = this.drawings.get(this.row);
    if (!drawing) return;
    const mine = this.editor.mask.ids;
    const { merged } = merge(before, mine, drawing.ids);
    drawing.ids = merged;
    if (merged.some((id, p) => id !== mine[p])) this.editor.load(merged);
    drawing.save();
  }

  erase() {
    this.editor.change(() => this.editor.mask.ids.fill(NONE));
  }

  run() {
    this.app.attempt(() => postJob({ kind: "fit" }));
  }

  /** Whether there are strokes that are not on the disk. */
  get unsaved() {
    return [...this.drawings.values()].some((drawing) => drawing.saving || drawing.dirty);
  }

  /** Why strokes are not on the disk. */
  get trouble() {
    return [...this.drawings.values()].find((drawing) => drawing.trouble)?.trouble ?? null;
  }

  // What happens elsewhere

  refitted() {
    this.list();
    if (this.app.active !== "annotate") return;
    this.renewMask();
    this.renewUnseen();
  }

  renewed() {
    for (const row of this.drawings.keys()) this.elsewhere(row);
    this.refitted();
    this.easel.update();
  }

  /** What the extractor sees in this sample. */
  async mask() {
    const row = this.row;
    const seen = await this.app.looks.mask(`pool-${row}`).catch(() => null);
    if (seen && row === this.row) this.editor.look(seen);
  }

  /** What it sees in those that nobody annotates. */
  async unseen() {
    const { session, looks } = this.app;
    for (const [i, sample] of session.state.unseen.entries()) {
      if (this.app.active !== "annotate") return;
      const looked = Promise.all([looks.preview(sample), looks.mask(sample)]);
      const [image, ids] = await looked.catch(() => [null, null]);
      if (image && this.six) show(this.six[i], image, ids, session.state.classes, 0.55);
    }
    byId("annotate").dataset.version = String(session.state.extractor.version);
  }

  /** An annotation was saved, here or in another tab. @param {number} row */
  async elsewhere(row) {
    this.list();
    this.easel.update();
    const drawing = this.drawings.get(row);
    if (!drawing || this.busy(row)) return;
    const renewed = await drawing.renew().catch(() => false);
    if (renewed && row === this.row && !this.busy(row)) {
      this.editor.load(drawing.ids);
      this.app.say(`Another tab changed row ${row}: ${counted(drawing.labelled, "labelled pixel")}`);
    }
  }

  /** @param {number} row @returns {boolean} whether a stroke is being drawn on it */
  busy(row) {
    return row === this.row && this.editor.mask.before !== null;
  }

  /** Strokes of another tab came to those made here. @param {Drawing} drawing */
  merged(drawing) {
    if (drawing.row === this.row && !this.busy(drawing.row)) this.editor.load(drawing.ids);
    this.app.note(`Another tab painted on row ${drawing.row}: the strokes of both are kept.`);
  }
}
