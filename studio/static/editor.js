/** A canvas on which masks are painted: by pointer, and by keys with a cursor. */

import { NONE, inside } from "./mask.js";
import { Stage } from "./stage.js";

/**
 * @typedef {import("./mask.js").Point} Point
 * @typedef {import("./overlay.js").Class} Class
 * @typedef {import("./stage.js").Tool} Tool
 */

/**
 * Events: `stroke` (detail: the ids before it), `tool`, `pick`, `selection` and `cursor` (detail:
 * where, and what is there).
 */
export class Editor extends Stage {
  /** @param {HTMLCanvasElement} canvas @param {number} size of masks, px @param {Class[]} classes */
  constructor(canvas, size, classes) {
    super(canvas, size, classes);
    this.label = 1;
    this.enabled = false; // nothing to paint on yet
    /** @type {Tool} the one before a pick */
    this.previous = "brush";
    /** @type {{kind: "paint" | "pan" | "lasso", last: Point} | null} */
    this.gesture = null;
    this.spaceHeld = false;
    this.listen();
  }

  listen() {
    const on = this.canvas.addEventListener.bind(this.canvas);
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event));
    on("pointercancel", () => this.cancel());
    on("pointerleave", () => ((this.hover = null), this.draw()));
    on("wheel", (event) => this.wheel(event), { passive: false });
    on("contextmenu", (event) => event.preventDefault());
    on("blur", () => ((this.spaceHeld = false), this.endKeyStroke()));
  }

  /** @param {string} name @param {any} [detail] */
  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  // What is shown

  /** Other ids, which are no stroke. @param {Uint8Array} ids */
  load(ids) {
    this.mask.load(ids);
    this.gesture = null;
    this.enabled = true;
    this.select([]);
    this.refresh();
  }

  /** @param {Uint8Array | null} seen */
  look(seen) {
    this.seen = seen;
    this.refresh();
  }

  // Tools

  /** @param {Tool} tool */
  use(tool) {
    if (tool !== "pick") this.previous = tool;
    this.tool = tool;
    this.tell("tool");
    this.draw();
  }

  /** The id that the tool paints. */
  get ink() {
    return this.tool === "erase" ? NONE : this.label;
  }

  /** @param {Point} from @param {Point} to */
  stroke(from, to) {
    const rect = this.mask.line(from, to, this.diameter, this.ink);
    if (rect) this.refresh(rect);
  }

  /** Use a tool that acts at once. @param {Point} at */
  click(at) {
    if (at.x < 0 || at.y < 0 || at.x >= this.size || at.y >= this.size) return;
    if (this.tool === "fill") {
      this.change(() => this.mask.flood(at, this.label, this.shown));
    } else if (this.tool === "pick") {
      const id = this.shown[Math.floor(at.y) * this.size + Math.floor(at.x)];
      if (id !== NONE) {
        this.label = id;
        this.tell("pick");
      }
      this.use(this.previous);
    }
  }

  /** One stroke that is done at once. @param {() => void} act */
  change(act) {
    this.mask.begin();
    act();
    this.finish();
  }

  /** The stroke is done. */
  finish() {
    const before = this.mask.before;
    const rect = this.mask.end();
    if (!rect) return;
    this.refresh(rect);
    this.tell("stroke", before);
  }

  /** @param {"undo" | "redo"} way */
  step(way) {
    if (this.gesture || this.mask.before) return;
    const before = this.mask.ids.slice();
    const rect = this.mask[way]();
    if (!rect) return;
    this.refresh(rect);
    this.tell("stroke", before);
  }

  /** @param {Point[]} corners */
  select(corners) {
    this.selection = corners.length > 2 ? corners : [];
    this.closed = true;
    this.tell("selection");
    this.draw();
  }

  /**
   * Give the selected pixels ids; those for which `choose` gives none stay.
   * @param {(p: number) => number | undefined} choose @returns {number} selected pixels
   */
  assign(choose) {
    const pixels = inside(this.selection, this.size);
    this.change(() => {
      for (const p of pixels) this.mask.ids[p] = choose(p) ?? this.mask.ids[p];
    });
    this.select([]);
    return pixels.length;
  }

  /** Adopt what the extractor sees in the selection, where nothing is painted. */
  adopt() {
    const seen = this.seen;
    if (!seen) return 0;
    return this.assign((p) => (this.mask.ids[p] === NONE ? seen[p] : undefined));
  }

  // Pointer

  /** @param {PointerEvent} event */
  down(event) {
    this.canvas.focus({ preventScroll: true });
    this.cursor = null;
    if (this.gesture) return;
    const pans = event.button === 1 || this.spaceHeld;
    if (!pans && (event.button !== 0 || !this.enabled)) return;
    this.canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
    const last = this.at(event);
    if (pans) {
      this.gesture = { kind: "pan", last: { x: event.clientX, y: event.clientY } };
    } else if (this.tool === "lasso") {
      this.gesture = { kind: "lasso", last };
      [this.selection, this.closed] = [[last], false];
    } else if (this.tool === "brush" || this.tool === "erase") {
      this.gesture = { kind: "paint", last };
      this.mask.begin();
      this.stroke(last, last);
    } else {
      this.click(last);
    }
  }

  /** @param {PointerEvent} event */
  move(event) {
    this.hover = this.at(event);
    this.draw();
    const gesture = this.gesture;
    if (!gesture) return;
    if (gesture.kind === "pan") {
      this.view.x += event.clientX - gesture.last.x;
      this.view.y += event.clientY - gesture.last.y;
      gesture.last = { x: event.clientX, y: event.clientY };
      return;
    }
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) {
      const at = this.at(one);
      if (gesture.kind === "lasso") this.selection.push(at);
      else this.stroke(gesture.last, at);
      gesture.last = at;
    }
  }

  /** @param {PointerEvent} event */
  up(event) {
    if (!this.gesture) return;
    this.move(event);
    const { kind } = this.gesture;
    this.gesture = null;
    if (kind === "paint") this.finish();
    if (kind === "lasso") this.select(this.selection);
  }

  /** Give up what is being drawn. @returns {boolean} whether there was anything */
  cancel() {
    const had = Boolean(this.gesture || this.mask.before || this.selection.length);
    this.gesture = null;
    this.mask.abandon();
    this.select([]);
    this.refresh();
    return had;
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    const at = { x: event.clientX - box.left, y: event.clientY - box.top };
    this.zoom(Math.exp(-event.deltaY / 400), at);
  }

  // Keys, while the canvas has the focus

  /** @param {KeyboardEvent} event @returns {boolean} whether the key was for the canvas */
  keyDown(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
      event.key
    ];
    if (way) {
      this.steer(way[0], way[1], event.shiftKey ? 8 : 1);
      return true;
    }
    if (event.key === " " && !this.cursor) {
      this.spaceHeld = true;
      return true;
    }
    if (event.key === "Enter" && this.selection.length > 2) {
      this.tell("accept");
      return true;
    }
    if (!this.cursor || !this.enabled || (event.key !== " " && event.key !== "Enter")) return false;
    if (!event.repeat) this.press(this.cursor);
    return true;
  }

  /** @param {KeyboardEvent} event */
  keyUp(event) {
    if (event.key === " " || event.key === "Enter") this.endKeyStroke();
    if (event.key === " ") this.spaceHeld = false;
  }

  /** @param {number} dx @param {number} dy @param {number} by px of the mask */
  steer(dx, dy, by) {
    const middle = Math.floor(this.size / 2) + 0.5;
    const from = this.cursor ?? { x: middle - dx * by, y: middle - dy * by }; // it begins there
    const within = (/** @type {number} */ v) => Math.max(0.5, Math.min(this.size - 0.5, v));
    const to = { x: within(from.x + dx * by), y: within(from.y + dy * by) };
    if (this.mask.before && !this.gesture) this.stroke(from, to);
    this.cursor = to;
    this.reveal(to);
    this.tell("cursor", { x: Math.floor(to.x), y: Math.floor(to.y) });
    this.draw();
  }

  /** Space or Enter at the cursor. @param {Point} at */
  press(at) {
    if (this.tool === "lasso") {
      const corners = [...this.selection, at];
      this.selection = corners;
      this.tell("selection");
      this.draw();
    } else if (this.tool === "brush" || this.tool === "erase") {
      this.mask.begin();
      this.stroke(at, at);
    } else {
      this.click(at);
    }
  }

  endKeyStroke() {
    if (this.mask.before && !this.gesture) this.finish();
  }
}
