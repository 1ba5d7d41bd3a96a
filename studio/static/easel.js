/** An editor with its tools, palette and what one does with a lasso's selection. */

import { Editor } from "./editor.js";
import { NONE } from "./mask.js";
import { swatch } from "./overlay.js";
import { counted, h, slider } from "./parts.js";

/** @type {[import("./stage.js").Tool, string, string][]} */
const TOOLS = [
  ["brush", "Brush", "B"],
  ["erase", "Erase", "E"],
  ["fill", "Fill", "F"],
  ["lasso", "Lasso", "L"],
  ["pick", "Pick", "I"],
];

/** One place to paint. */
export class Easel {
  /**
   * @param {import("./app.js").App} app @param {string} label of the canvas
   * @param {{counts: boolean, adopts: boolean}} shows labelled pixels of classes; what is seen can be adopted
   */
  constructor(app, label, shows) {
    const { size, classes } = app.session.state;
    this.app = app;
    this.shows = shows;
    /** @type {((on: boolean) => void) | null} */
    this.onCompare = null;
    const canvas = h("canvas", {
      class: "easel",
      tabindex: 0,
      role: "application",
      "aria-label": label,
      "aria-describedby": "keys-of-canvas",
    });
    this.editor = new Editor(canvas, size, classes);
    this.editor.diameter = Math.max(1, Math.round(size / 24));
    this.tools = this.makeTools();
    this.choices = this.makeChoices();
    this.bar = this.makeBar();
    this.palette = h("ul", { class: "palette", "aria-label": "Classes" });
    /** @type {{button: HTMLButtonElement, count: HTMLElement}[]} */
    this.entries = classes.map((entry) => this.makeEntry(entry));
    this.root = h("div", { class: "easel-frame" }, this.tools, canvas, this.bar);
    for (const name of ["tool", "pick"]) this.editor.addEventListener(name, () => this.update());
    this.editor.addEventListener("selection", () => this.update());
    this.editor.addEventListener("accept", () => this.accept());
    this.editor.addEventListener("cursor", (event) =>
      this.say(/** @type {CustomEvent} */ (event).detail),
    );
    this.update();
  }

  makeTools() {
    const editor = this.editor;
    this.buttons = TOOLS.map(([tool, name, key]) =>
      h("button", { type: "button", title: `${name} (${key})`, onclick: () => editor.use(tool) }, name),
    );
    const act = (/** @type {string} */ name, /** @type {string} */ title, /** @type {() => void} */ onclick) =>
      h("button", { type: "button", title, "aria-label": title, onclick }, name);
    return h(
      "div",
      { class: "tools", role: "toolbar", "aria-label": "Tools" },
      h("span", { class: "group" }, ...this.buttons),
      h(
        "span",
        { class: "group" },
        act("↶", "Undo (Ctrl+Z)", () => editor.step("undo")),
        act("↷", "Redo (Ctrl+Y)", () => editor.step("redo")),
        act("−", "Zoom out (-)", () => editor.zoom(1 / 1.5)),
        act("+", "Zoom in (+)", () => editor.zoom(1.5)),
        act("⤢", "All of the image (Home)", () => editor.fit()),
      ),
    );
  }

  makeChoices() {
    const editor = this.editor;
    const widest = Math.max(16, Math.round(editor.size / 3));
    const brush = { min: 1, max: widest, step: 1, value: editor.diameter };
    this.brush = slider(
      "Brush",
      brush,
      (value) => {
        editor.diameter = value;
        editor.draw();
      },
      (value) => `${value} px`,
    );
    this.opacity = slider(
      "Mask",
      { min: 0, max: 100, step: 5, value: 100 * editor.opacity },
      (value) => {
        editor.opacity = value / 100;
        editor.draw();
      },
      (value) => `${value} %`,
    );
    return h("div", { class: "choices" }, this.brush.root, this.opacity.root);
  }

  makeBar() {
    const editor = this.editor;
    const act = (/** @type {string} */ name, /** @type {() => void} */ onclick) =>
      h("button", { type: "button", onclick }, name);
    this.paintName = h("span");
    const adopt = act("Accept what is seen (Enter)", () => this.accept());
    const paint = act("Paint ", () => editor.assign(() => editor.label));
    paint.append(this.paintName);
    return h(
      "div",
      { class: "selection-bar", role: "group", "aria-label": "Selection", hidden: true },
      ...(this.shows.adopts ? [adopt] : []),
      paint,
      act(this.shows.adopts ? "Unlabel" : "Leave as it is", () => editor.assign(() => NONE)),
      act("Drop (Esc)", () => editor.select([])),
    );
  }

  /** Enter on a selection. */
  accept() {
    const editor = this.editor;
    if (!this.shows.adopts) editor.assign(() => editor.label);
    else if (editor.seen) this.app.say(`${counted(editor.adopt(), "pixel")} looked at and accepted`);
  }

  /** @param {import("./overlay.js").Class} entry */
  makeEntry(entry) {
    const canvas = h("canvas", { class: "swatch", "aria-hidden": "true" });
    swatch(canvas, entry);
    const count = h("span", { class: "count" });
    const key = entry.id < 10 ? `${entry.id}` : entry.id < 20 ? `⇧${entry.id - 10}` : "";
    const button = h(
      "button",
      { type: "button", onclick: () => this.choose(entry.id) },
      canvas,
      h("span", { class: "class-name" }, entry.name),
      count,
      h("kbd", { "aria-hidden": "true" }, key),
    );
    this.palette.append(h("li", {}, button));
    return { button, count };
  }

  /** @param {number} id */
  choose(id) {
    if (id >= this.entries.length) return;
    this.editor.label = id;
    if (this.editor.tool === "erase" || this.editor.tool === "pick") this.editor.use("brush");
    this.update();
  }

  /** Bring tools and palette up to date. */
  update() {
    const { editor, app } = this;
    this.buttons?.forEach((button, i) => {
      button.setAttribute("aria-pressed", String(TOOLS[i][0] === editor.tool));
    });
    this.entries.forEach(({ button, count }, id) => {
      button.setAttribute("aria-pressed", String(id === editor.label));
      const { labelled, samples } = app.session.state.classes[id];
      count.textContent = !this.shows.counts || !labelled ? "" : `${labelled} px · ${samples}`;
      count.title = `${counted(labelled, "pixel")} labelled in ${counted(samples, "sample")}`;
    });
    this.bar.hidden = editor.selection.length < 3 || !editor.closed;
    if (this.paintName) this.paintName.textContent = app.session.state.classes[editor.label].name;
  }

  /** Tell where the cursor of the keyboard is. @param {{x: number, y: number}} at */
  say({ x, y }) {
    const { editor, app } = this;
    const p = y * editor.size + x;
    const [id, seen] = [editor.mask.ids[p], editor.seen?.[p] ?? NONE];
    const name = (/** @type {number} */ of) => app.session.state.classes[of].name;
    const what = id !== NONE ? name(id) : seen !== NONE ? `${name(seen)}, guessed` : "unlabelled";
    app.say(`${x}, ${y}: ${what}`);
  }

  /** @param {number} by px */
  widen(by) {
    const { editor, brush } = this;
    editor.diameter = Math.max(1, Math.min(Number(brush?.input.max), editor.diameter + by));
    brush?.set(editor.diameter);
    editor.draw();
  }

  /** A key without Ctrl. @param {KeyboardEvent} event @returns {boolean} whether it did something */
  key(event) {
    const { editor } = this;
    const digit = /^Digit(\d)$/.exec(event.code);
    if (digit) this.choose(Number(digit[1]) + (event.shiftKey ? 10 : 0));
    const tool = TOOLS.find(([, , key]) => key === event.key.toUpperCase());
    if (tool) editor.use(tool[0]);
    /** @type {Record<string, () => void>} */
    const others = {
      "[": () => this.widen(-1),
      "]": () => this.widen(1),
      "+": () => editor.zoom(1.5),
      "=": () => editor.zoom(1.5),
      "-": () => editor.zoom(1 / 1.5),
      HOME: () => editor.fit(),
      X: () => ((editor.visible = !editor.visible), editor.draw()),
      A: () => this.compare(true),
    };
    const other = others[event.key.toUpperCase()];
    other?.();
    return Boolean(digit || tool || other);
  }

  /** Hold A. @param {boolean} on */
  compare(on) {
    this.editor.comparing = on;
    this.onCompare?.(on);
    this.editor.draw();
  }
}
