/** A picture with its mask on a canvas, zoomed and panned, with what is outlined on it. */

import { Mask, composed } from "./mask.js";
import { Overlay } from "./overlay.js";

const MAX_ZOOM = 64; // px of the screen per px of the mask

/**
 * @typedef {import("./mask.js").Point} Point
 * @typedef {import("./overlay.js").Class} Class
 * @typedef {"brush" | "erase" | "fill" | "lasso" | "pick"} Tool
 */

export class Stage extends EventTarget {
  /** @param {HTMLCanvasElement} canvas @param {number} size of masks, px @param {Class[]} classes */
  constructor(canvas, size, classes) {
    super();
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.size = size;
    this.mask = new Mask(size);
    this.overlay = new Overlay(size, classes);
    /** @type {Uint8Array | null} what the extractor sees */
    this.seen = null;
    /** @type {CanvasImageSource | null} */
    this.image = null;
    /** @type {CanvasImageSource | null} shown instead while comparing */
    this.other = null;
    this.opacity = 0.6;
    this.visible = true; // the overlay
    this.comparing = false;
    /** @type {Tool} */
    this.tool = "brush";
    this.diameter = 6; // of the brush, px of the mask
    /** @type {Point[]} of a lasso, closed or not */
    this.selection = [];
    this.closed = true; // the lasso
    /** @type {Point | null} cursor of the keyboard */
    this.cursor = null;
    /** @type {Point | null} the pointer */
    this.hover = null;
    this.view = { scale: 0, x: 0, y: 0 }; // CSS px per px of the mask; CSS px of its corner
    this.pending = 0;
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  /** What one sees: painted ids, else guessed ones. */
  get shown() {
    return composed(this.mask.ids, this.seen);
  }

  /** @param {import("./mask.js").Rect} [rect] */
  refresh(rect = { x: 0, y: 0, width: this.size, height: this.size }) {
    this.overlay.update(this.mask.ids, this.seen, rect);
    this.draw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.fit();
  }

  /** All of the mask. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = Math.min(width, height) / this.size;
    const [x, y] = [(width - scale * this.size) / 2, (height - scale * this.size) / 2];
    this.view = { scale, x, y };
    this.draw();
  }

  /** @param {number} factor @param {Point} [at] CSS px that stay where they are */
  zoom(factor, at = { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 }) {
    const { scale, x, y } = this.view;
    const least = Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / this.size / 2;
    const next = Math.max(least, Math.min(MAX_ZOOM, scale * factor));
    const by = next / scale;
    this.view = { scale: next, x: at.x - (at.x - x) * by, y: at.y - (at.y - y) * by };
    this.draw();
  }

  draw() {
    this.pending ||= requestAnimationFrame(() => {
      this.pending = 0;
      this.paint();
    });
  }

  paint() {
    const [context, ratio] = [this.context, window.devicePixelRatio || 1];
    const { scale, x, y } = this.view;
    const side = scale * this.size;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    context.imageSmoothingEnabled = true;
    const image = this.comparing && this.other ? this.other : this.image;
    if (image) context.drawImage(image, x, y, side, side);
    if (this.visible && !this.comparing) {
      context.globalAlpha = this.opacity;
      context.imageSmoothingEnabled = side < this.overlay.canvas.width;
      context.drawImage(this.overlay.canvas, x, y, side, side);
      context.globalAlpha = 1;
    }
    this.outlines();
  }

  /** Lasso, brush and cursor: dark on light, so that they are seen on anything. */
  outlines() {
    const { scale, x, y } = this.view;
    const path = new Path2D();
    if (this.selection.length > 1) {
      this.selection.forEach((p) => path.lineTo(x + p.x * scale, y + p.y * scale));
      if (this.closed) path.closePath();
    }
    const round = this.tool === "brush" || this.tool === "erase";
    if (this.hover && round) {
      const [cx, cy] = [x + this.hover.x * scale, y + this.hover.y * scale];
      path.moveTo(cx + (this.diameter / 2) * scale, cy);
      path.arc(cx, cy, (this.diameter / 2) * scale, 0, 7);
    }
    if (this.cursor) {
      const [left, top] = [Math.floor(this.cursor.x), Math.floor(this.cursor.y)];
      path.rect(x + left * scale - 1, y + top * scale - 1, scale + 2, scale + 2);
      const [cx, cy] = [x + (left + 0.5) * scale, y + (top + 0.5) * scale];
      for (const [dx, dy] of [[-1, 0], [1, 0], [0, -1], [0, 1]]) {
        path.moveTo(cx + dx * (scale / 2 + 3), cy + dy * (scale / 2 + 3));
        path.lineTo(cx + dx * (scale / 2 + 12), cy + dy * (scale / 2 + 12));
      }
    }
    for (const [width, color] of /** @type {[number, string][]} */ ([[4, "#000"], [1.5, "#fff"]])) {
      this.context.lineWidth = width;
      this.context.strokeStyle = color;
      this.context.stroke(path);
    }
  }

  /** @param {{clientX: number, clientY: number}} event @returns {Point} px of the mask */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const { scale, x, y } = this.view;
    return { x: (event.clientX - box.left - x) / scale, y: (event.clientY - box.top - y) / scale };
  }

  /** Pan so that a point is seen. @param {Point} point */
  reveal(point) {
    const { scale, x, y } = this.view;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [px, py] = [x + point.x * scale, y + point.y * scale];
    this.view.x += Math.max(0, 16 - px) - Math.max(0, px - width + 16);
    this.view.y += Math.max(0, 16 - py) - Math.max(0, py - height + 16);
  }
}
