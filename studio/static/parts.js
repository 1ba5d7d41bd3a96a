/** Small parts of all screens. */

import { bytes, lookPath, picture } from "./api.js";

/**
 * An element: `on...` are listeners, other names attributes; true and false add and leave out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {Record<string, any>} [attributes] @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
export function byId(id) {
  return /** @type {T} */ (document.getElementById(id));
}

/**
 * A slider with its name and value.
 * @param {string} name @param {{min: number, max: number, step: number, value: number}} range
 * @param {(value: number) => void} onInput @param {(value: number) => string} [text]
 */
export function slider(name, range, onInput, text = String) {
  const output = h("output", {}, text(range.value));
  const input = h("input", { type: "range", ...range, "aria-label": name });
  input.addEventListener("input", () => {
    output.textContent = text(input.valueAsNumber);
    onInput(input.valueAsNumber);
  });
  const set = (/** @type {number} */ value) => {
    input.value = String(value);
    output.textContent = text(input.valueAsNumber);
  };
  return { root: h("label", { class: "slider" }, h("span", {}, name), input, output), input, set };
}

/**
 * A function that runs alone: calls during a run become one more run behind it.
 * @param {() => Promise<void>} work @returns {() => Promise<void>}
 */
export function latest(work) {
  /** @type {Promise<void> | null} */
  let running = null;
  let again = false;
  return () => {
    if (running) {
      again = true;
      return running;
    }
    running = (async () => {
      do {
        again = false;
        await work();
      } while (again);
    })().finally(() => (running = null));
    return running;
  };
}

const KEPT = 60; // pictures

/** Looks at samples; pictures are kept, masks are as old as the extractor. */
export class Looks {
  constructor() {
    /** @type {Map<string, Promise<ImageBitmap>>} */
    this.pictures = new Map();
  }

  /** @param {string} path @returns {Promise<ImageBitmap>} */
  picture(path) {
    const found = this.pictures.get(path) ?? picture(path);
    this.pictures.delete(path);
    this.pictures.set(path, found);
    found.catch(() => this.pictures.delete(path));
    if (this.pictures.size > KEPT) this.pictures.delete([...this.pictures.keys()][0]);
    return found;
  }

  /** @param {string} sample @returns {Promise<ImageBitmap>} */
  preview(sample) {
    return this.picture(lookPath(sample, "preview.jpg"));
  }

  /** @param {string} sample @returns {Promise<ImageBitmap>} */
  image(sample) {
    return this.picture(lookPath(sample, "image.jpg"));
  }

  /** @param {string} sample @returns {Promise<Uint8Array>} */
  mask(sample) {
    return bytes(lookPath(sample, "mask"));
  }
}

/** @param {string} sample pool-3 @returns {string} pool 3 */
export function spoken(sample) {
  return sample.replace("-", " ");
}

/** @param {number} value of 0 to 1 */
export function percent(value) {
  return `${Math.round(100 * value)} %`;
}

/** @param {number} count @param {string} what @returns {string} 1 pixel, 2 pixels */
export function counted(count, what) {
  return `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
}

/**
 * A canvas of a side for looking at a sample.
 * @param {number} side px @param {string} label
 */
export function lookCanvas(side, label) {
  return h("canvas", { width: side, height: side, role: "img", "aria-label": label });
}

/**
 * Fields that name a sample: a kind and a number.
 * @param {string} label @param {import("./session.js").Session} session
 */
export function sampleFields(label, session) {
  const kinds = { pool: "pool row", seed: "seed", photo: "photo", edit: "edit" };
  const options = Object.entries(kinds).map(([value, name]) => h("option", { value }, name));
  const kind = h("select", { "aria-label": `${label}: kind` }, ...options);
  const number = h("input", { type: "number", min: 0, value: 0, "aria-label": `${label}: number` });
  const limits = () => {
    const last = session.state.pool.length - 1;
    number.max = kind.value === "pool" ? String(last) : String(2 ** 31 - 1);
  };
  kind.addEventListener("change", limits);
  limits();
  const root = h("span", { class: "sample-fields" }, kind, number);
  return {
    root,
    get value() {
      return `${kind.value}-${number.value || 0}`;
    },
    set value(sample) {
      [kind.value, number.value] = sample.split("-");
      limits();
    },
  };
}
