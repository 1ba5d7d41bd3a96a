/** The server's routes, as studio/API.md says. */

/** What the server, or the way to it, refuses: a sentence in three parts. */
export class Refused extends Error {
  /**
   * @param {number} status of HTTP; 0: no answer @param {{got: string, wanted: string, remedy: string}} error
   * @param {string} [revision] that the server has, of a conflict
   */
  constructor(status, error, revision) {
    super(`Got ${error.got}; wanted ${error.wanted}; ${error.remedy}.`);
    this.status = status;
    this.error = error;
    this.revision = revision;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.status === 0 || this.status >= 500;
  }
}

const GONE = {
  got: "no answer from the studio",
  wanted: "a running server",
  remedy: "start `python -m stages.studio` again; this page goes on by itself",
};

/**
 * One request; Refused for any answer but a good one.
 * @param {string} path @param {RequestInit} [options] @returns {Promise<Response>}
 */
export async function ask(path, options = {}) {
  const headers = { "X-Studio": "1", ...options.headers };
  const answer = await fetch(path, { ...options, headers }).catch(() => null);
  if (!answer) throw new Refused(0, GONE);
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const fallback = {
    got: `status ${answer.status} of ${path}`,
    wanted: "an answer",
    remedy: "see the terminal of the studio",
  };
  throw new Refused(answer.status, body.error ?? fallback, body.revision);
}

/** @param {string} path */
export async function json(path) {
  return (await ask(path)).json();
}

/** @param {string} path @returns {Promise<Uint8Array>} */
export async function bytes(path) {
  return new Uint8Array(await (await ask(path)).arrayBuffer());
}

/**
 * A picture, whole before it is shown.
 * @param {string} path @returns {Promise<ImageBitmap>}
 */
export async function picture(path) {
  return createImageBitmap(await (await ask(path)).blob());
}

/**
 * The address of a look at a sample.
 * @param {string} sample @param {"image.jpg" | "preview.jpg" | "mask"} look
 * @param {{edit: number, strength: number}} [moved] by an edit's vector
 */
export function lookPath(sample, look, moved) {
  const query = moved ? `?edit=${moved.edit}&strength=${moved.strength}` : "";
  return `/api/samples/${sample}/${look}${query}`;
}

/** @param {number} row @returns {Promise<{ids: Uint8Array, revision: string}>} */
export async function annotation(row) {
  const answer = await ask(`/api/annotations/${row}`, { cache: "no-store" });
  const ids = new Uint8Array(await answer.arrayBuffer());
  return { ids, revision: unquoted(answer.headers.get("ETag")) };
}

/** @param {number} row @param {Uint8Array} ids @param {string} revision that is replaced */
export async function putAnnotation(row, ids, revision) {
  const headers = { "If-Match": `"${revision}"`, "Content-Type": "application/octet-stream" };
  const body = /** @type {BodyInit} */ (ids.slice());
  return (await ask(`/api/annotations/${row}`, { method: "PUT", headers, body })).json();
}

/** @param {object} job @returns {Promise<number>} its id */
export async function postJob(job) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(job);
  return (await (await ask("/api/jobs", { method: "POST", headers, body })).json()).id;
}

/** @param {number} id */
export async function cancelJob(id) {
  await ask(`/api/jobs/${id}`, { method: "DELETE" });
}

/** @param {File} file @param {[number, number][] | null} points px of the image; null: automatic */
export async function postPhoto(file, points) {
  const query = points ? `?points=${points.flat().map(Math.round).join(",")}` : "";
  return (await ask(`/api/photos${query}`, { method: "POST", body: file })).json();
}

/** @param {Uint8Array} ids @returns {string} */
export function base64(ids) {
  let text = "";
  for (const id of ids) text += String.fromCharCode(id);
  return btoa(text);
}

/** @param {string} text of base64 @returns {Uint8Array} */
export function unbase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** @param {string | null} tag */
function unquoted(tag) {
  return (tag ?? "").replace(/^W\//, "").replaceAll('"', "");
}

const EVENTS = [
  ...["queued", "progress", "done", "failed", "cancelled"],
  ...["annotation", "extractor", "lane", "reset"],
];

/** Server-sent events, connected again whenever the connection is lost. */
export class Feed {
  /**
   * @param {string} last id of the last event that is known
   * @param {(name: string, data: any) => void} onEvent @param {(online: boolean) => void} onState
   */
  constructor(last, onEvent, onState) {
    this.last = last;
    this.onEvent = onEvent;
    this.onState = onState;
    this.wait = 500; // ms before the next try
    this.open();
  }

  open() {
    const source = new EventSource(`/api/events?after=${encodeURIComponent(this.last)}`);
    source.onopen = () => {
      this.wait = 500;
      this.onState(true);
    };
    source.onerror = () => {
      source.close();
      this.onState(false);
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(2 * this.wait, 8000);
    };
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        this.last = /** @type {MessageEvent} */ (event).lastEventId || this.last;
        this.onEvent(name, JSON.parse(/** @type {MessageEvent} */ (event).data));
      });
    }
  }
}
