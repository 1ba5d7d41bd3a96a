/** Colours and patterns of classes: masks drawn for people, on canvases that nobody reads back. */

import { NONE } from "./mask.js";

const TEXELS = 1024; // about so many a side: patterns are finer than pixels of masks
const GUESSED = 120; // alpha of what is not painted, of 255

/**
 * @typedef {import("./mask.js").Rect} Rect
 * @typedef {{id: number, name: string, color: string, labelled: number, samples: number}} Class
 */

/** Whether a texel belongs to the lines of pattern k. @type {((x: number, y: number) => boolean)[]} */
const PATTERNS = [
  () => false,
  (x, y) => (x + y) % 16 < 4,
  (x, y) => (x - y + 2 ** 14) % 16 < 4,
  (_, y) => y % 14 < 4,
  (x) => x % 14 < 4,
  (x, y) => x % 16 > 4 && x % 16 < 12 && y % 16 > 4 && y % 16 < 12,
  (x, y) => x % 16 < 3 || y % 16 < 3,
  (x, y) => (x % 16 < 8) === (y % 16 < 8),
];

/** @param {string} color #rrggbb @param {number} shift to each channel @param {number} alpha */
function packed(color, shift, alpha) {
  const channel = (/** @type {number} */ at) =>
    Math.max(0, Math.min(255, parseInt(color.slice(at, at + 2), 16) + shift));
  const [r, g, b] = [channel(1), channel(3), channel(5)];
  return ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

/** @param {string} color #rrggbb @returns {number} how much lighter or darker its pattern is */
function shift(color) {
  const value = parseInt(color.slice(1), 16);
  const light = 0.3 * (value >> 16) + 0.59 * ((value >> 8) & 255) + 0.11 * (value & 255);
  return light > 110 ? -70 : 70;
}

/** The mask of one picture as colours and patterns. */
export class Overlay {
  /** @param {number} size of masks, px @param {Class[]} classes @param {number} texels a side */
  constructor(size, classes, texels = TEXELS) {
    this.size = size;
    this.scale = Math.max(1, Math.round(texels / size));
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.canvas.height = size * this.scale;
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.flat = classes.map(({ color }) => packed(color, 0, GUESSED));
    this.solid = classes.map(({ color }) => packed(color, 0, 255));
    this.lines = classes.map(({ color }) => packed(color, shift(color), 255));
  }

  /** What is guessed looks as full as what is painted. */
  opaque() {
    this.flat = this.solid;
  }

  /**
   * Draw a part anew.
   * @param {Uint8Array} ids painted @param {Uint8Array | null} seen guessed @param {Rect} rect
   */
  update(ids, seen, rect) {
    const k = this.scale;
    const width = rect.width * k;
    const image = new ImageData(width, rect.height * k);
    const pixels = new Uint32Array(image.data.buffer);
    for (let y = 0; y < rect.height; y++) {
      for (let x = 0; x < rect.width; x++) {
        const p = (rect.y + y) * this.size + rect.x + x;
        const id = ids[p];
        const guess = id === NONE && seen ? seen[p] : NONE;
        if (id === NONE && guess === NONE) continue;
        const start = y * k * width + x * k;
        if (id === NONE) this.fill(pixels, start, width, this.flat[guess]);
        else this.weave(pixels, start, width, id, (rect.x + x) * k, (rect.y + y) * k);
      }
    }
    this.context.putImageData(image, rect.x * k, rect.y * k);
  }

  /** One pixel, plain. @param {Uint32Array} to @param {number} start @param {number} width @param {number} color */
  fill(to, start, width, color) {
    for (let row = 0; row < this.scale; row++) {
      to.fill(color, start + row * width, start + row * width + this.scale);
    }
  }

  /**
   * One pixel of a class, with its pattern.
   * @param {Uint32Array} to @param {number} start @param {number} width @param {number} id
   * @param {number} left @param {number} top texel of the pixel's corner
   */
  weave(to, start, width, id, left, top) {
    const pattern = PATTERNS[id % PATTERNS.length];
    for (let row = 0; row < this.scale; row++) {
      for (let column = 0; column < this.scale; column++) {
        const on = pattern(left + column, top + row);
        to[start + row * width + column] = on ? this.lines[id] : this.solid[id];
      }
    }
  }
}

/**
 * A small square in a class's colour and pattern.
 * @param {HTMLCanvasElement} canvas @param {Class} entry
 */
export function swatch(canvas, { id, color }) {
  const side = 48;
  const [solid, lines] = [packed(color, 0, 255), packed(color, shift(color), 255)];
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  const pixels = new Uint32Array(image.data.buffer);
  const pattern = PATTERNS[id % PATTERNS.length];
  pixels.forEach((_, p) => {
    const on = pattern(p % side, Math.floor(p / side));
    pixels[p] = on ? lines : solid;
  });
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/**
 * A picture with its mask over it, both to be looked at only.
 * @param {HTMLCanvasElement} canvas @param {CanvasImageSource | null} image
 * @param {Uint8Array | null} ids @param {Class[]} classes @param {number} opacity
 */
export function show(canvas, image, ids, classes, opacity) {
  const context = canvas.getContext("2d");
  if (!context) return;
  const side = canvas.width;
  context.clearRect(0, 0, side, side);
  if (image) context.drawImage(image, 0, 0, side, side);
  if (!ids) return;
  const size = Math.sqrt(ids.length);
  const overlay = new Overlay(size, classes, size);
  const nothing = new Uint8Array(ids.length).fill(NONE);
  overlay.opaque();
  overlay.update(nothing, ids, { x: 0, y: 0, width: size, height: size });
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = false;
  context.drawImage(overlay.canvas, 0, 0, side, side);
  context.globalAlpha = 1;
}
