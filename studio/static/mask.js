/**
 * Class ids at mask size: the only truth of what is painted. Canvas colours are never read back.
 *
 * Coordinates are in mask pixels: pixel (i, j) covers [i, i + 1) x [j, j + 1).
 */

/** Unlabelled in an annotation, "leave as it is" in an edit. */
export const NONE = 255;

const MAX_STEPS = 100;
const MAX_BYTES = 8 * 2 ** 20;

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{x: number, y: number, width: number, height: number}} Rect
 * @typedef {{rect: Rect, before: Uint8Array, after: Uint8Array}} Step one stroke's dirty rectangle
 */

/** Ids of one picture, with undo by dirty rectangles. */
export class Mask {
  /** @param {number} size side, px */
  constructor(size) {
    this.size = size;
    /** @type {Uint8Array} */
    this.ids = new Uint8Array(size * size).fill(NONE);
    /** @type {Step[]} */
    this.done = [];
    /** @type {Step[]} */
    this.undone = [];
    /** @type {Uint8Array | null} the ids before the stroke that is being drawn */
    this.before = null;
  }

  /** Other ids; what was drawn before cannot be undone any more. @param {Uint8Array} ids */
  load(ids) {
    this.ids = Uint8Array.from(ids);
    this.done = [];
    this.undone = [];
    this.before = null;
  }

  /** Begin a stroke. */
  begin() {
    this.before ??= this.ids.slice();
  }

  /** End a stroke. @returns {Rect | null} what it changed */
  end() {
    const before = this.before;
    this.before = null;
    const rect = before && changed(before, this.ids, this.size);
    if (!before || !rect) return null;
    this.done.push({
      rect,
      before: cut(before, rect, this.size),
      after: cut(this.ids, rect, this.size),
    });
    this.undone = [];
    this.forget();
    return rect;
  }

  /** Give a stroke up that is being drawn. */
  abandon() {
    if (this.before) this.ids = this.before;
    this.before = null;
  }

  /** Drop the oldest steps beyond the limits. */
  forget() {
    let bytes = this.done.reduce((sum, step) => sum + 2 * step.before.length, 0);
    while (this.done.length > MAX_STEPS || (bytes > MAX_BYTES && this.done.length > 1)) {
      bytes -= 2 * (this.done.shift()?.before.length ?? 0);
    }
  }

  /** @returns {Rect | null} what changed */
  undo() {
    const step = this.done.pop();
    if (!step) return null;
    this.undone.push(step);
    return paste(this.ids, step.before, step.rect, this.size);
  }

  /** @returns {Rect | null} what changed */
  redo() {
    const step = this.undone.pop();
    if (!step) return null;
    this.done.push(step);
    return paste(this.ids, step.after, step.rect, this.size);
  }

  /**
   * Paint the pixels whose centres lie within half a diameter of a line, and those at its ends.
   * @param {Point} from @param {Point} to @param {number} diameter @param {number} id
   * @returns {Rect | null}
   */
  line(from, to, diameter, id) {
    const radius = diameter / 2;
    const rect = this.clip(
      Math.min(from.x, to.x) - radius,
      Math.min(from.y, to.y) - radius,
      Math.max(from.x, to.x) + radius,
      Math.max(from.y, to.y) + radius,
    );
    if (!rect) return null;
    for (let y = rect.y; y < rect.y + rect.height; y++) {
      for (let x = rect.x; x < rect.x + rect.width; x++) {
        if (distance({ x: x + 0.5, y: y + 0.5 }, from, to) <= radius) {
          this.ids[y * this.size + x] = id;
        }
      }
    }
    for (const end of [from, to]) this.dot(end, id);
    return rect;
  }

  /** Paint the pixel at a point. @param {Point} point @param {number} id */
  dot({ x, y }, id) {
    if (x < 0 || y < 0 || x >= this.size || y >= this.size) return;
    this.ids[Math.floor(y) * this.size + Math.floor(x)] = id;
  }

  /**
   * Paint a connected area of one id in `shown`: what one sees, painted or guessed.
   * @param {Point} at @param {number} id @param {Uint8Array} shown
   */
  flood(at, id, shown) {
    const size = this.size;
    const start = Math.floor(at.y) * size + Math.floor(at.x);
    const old = shown[start];
    const seen = new Uint8Array(size * size);
    const open = [start];
    seen[start] = 1;
    for (let p = open.pop(); p !== undefined; p = open.pop()) {
      this.ids[p] = id;
      const x = p % size;
      const next = [p - size, p + size, x > 0 ? p - 1 : -1, x < size - 1 ? p + 1 : -1];
      for (const q of next) {
        if (q >= 0 && q < size * size && !seen[q] && shown[q] === old) {
          seen[q] = 1;
          open.push(q);
        }
      }
    }
  }

  /**
   * @param {number} left @param {number} top @param {number} right @param {number} bottom
   * @returns {Rect | null} whole pixels that these bounds touch
   */
  clip(left, top, right, bottom) {
    const x = Math.max(0, Math.floor(left));
    const y = Math.max(0, Math.floor(top));
    const width = Math.min(this.size, Math.floor(right) + 1) - x;
    const height = Math.min(this.size, Math.floor(bottom) + 1) - y;
    return width > 0 && height > 0 ? { x, y, width, height } : null;
  }
}

/** @param {Point} p @param {Point} a @param {Point} b @returns {number} from p to the line ab */
function distance(p, a, b) {
  const dx = b.x - a.x;
  const dy = b.y - a.y;
  const length = dx * dx + dy * dy;
  const along = length ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / length : 0;
  const t = Math.max(0, Math.min(1, along));
  return Math.hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

/**
 * Pixels whose centres lie inside a polygon, by the even-odd rule.
 * @param {Point[]} corners @param {number} size @returns {number[]} indices
 */
export function inside(corners, size) {
  /** @type {number[]} */
  const found = [];
  for (let y = 0; y < size; y++) {
    const crossings = [];
    for (let i = 0; i < corners.length; i++) {
      const a = corners[i];
      const b = corners[(i + 1) % corners.length];
      if (a.y <= y + 0.5 !== b.y <= y + 0.5) {
        crossings.push(a.x + ((y + 0.5 - a.y) / (b.y - a.y)) * (b.x - a.x));
      }
    }
    crossings.sort((one, other) => one - other);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const first = Math.max(0, Math.ceil(crossings[i] - 0.5));
      const last = Math.min(size - 1, Math.ceil(crossings[i + 1] - 0.5) - 1);
      for (let x = first; x <= last; x++) found.push(y * size + x);
    }
  }
  return found;
}

/**
 * Painted ids, and what is guessed where nothing is painted.
 * @param {Uint8Array} ids @param {Uint8Array | null} seen @returns {Uint8Array}
 */
export function composed(ids, seen) {
  return seen ? ids.map((id, p) => (id === NONE ? seen[p] : id)) : ids.slice();
}

/**
 * Both of two changes of the same ids; mine where both changed a pixel to different ids.
 * @param {Uint8Array} base @param {Uint8Array} mine @param {Uint8Array} theirs
 * @returns {{merged: Uint8Array, contested: number}}
 */
export function merge(base, mine, theirs) {
  let contested = 0;
  const merged = theirs.map((id, p) => {
    if (mine[p] === base[p]) return id;
    if (id !== base[p] && id !== mine[p]) contested++;
    return mine[p];
  });
  return { merged, contested };
}

/**
 * @param {Uint8Array} one @param {Uint8Array} other @param {number} size
 * @returns {Rect | null} around all pixels that differ
 */
function changed(one, other, size) {
  let [left, top, right, bottom] = [size, size, -1, -1];
  for (let p = 0; p < one.length; p++) {
    if (one[p] === other[p]) continue;
    const x = p % size;
    const y = (p - x) / size;
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
  }
  return right < 0 ? null : { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}

/** @param {Uint8Array} ids @param {Rect} rect @param {number} size */
function cut(ids, rect, size) {
  const part = new Uint8Array(rect.width * rect.height);
  for (let row = 0; row < rect.height; row++) {
    const start = (rect.y + row) * size + rect.x;
    part.set(ids.subarray(start, start + rect.width), row * rect.width);
  }
  return part;
}

/** @param {Uint8Array} ids @param {Uint8Array} part @param {Rect} rect @param {number} size */
function paste(ids, part, rect, size) {
  for (let row = 0; row < rect.height; row++) {
    const line = part.subarray(row * rect.width, (row + 1) * rect.width);
    ids.set(line, (rect.y + row) * size + rect.x);
  }
  return rect;
}
