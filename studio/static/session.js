/** What the page knows of the session, and the annotations on their way to the disk. */

import { Feed, Refused, annotation, base64, json, putAnnotation, unbase64 } from "./api.js";
import { NONE, merge } from "./mask.js";

/**
 * @typedef {import("./overlay.js").Class} Class
 * @typedef {{got: string, wanted: string, remedy: string}} Sentence
 * @typedef {{step: number, of: number, loss: number, iou: ?number, lab: ?number, frame: ?number}} Progress
 * @typedef {{id: number, kind: string, state: string, automatic: boolean, request: any, created: number,
 *   seconds: ?number, progress: ?Progress, result: any, error: ?Sentence, command: string}} Job
 * @typedef {{version: number, state: string, samples: number, pixels: number, title: string}} Extractor
 * @typedef {{row: number, sample: string, seed: number, labelled: number, revision: string}} Row
 * @typedef {{study: string, name: string, psi: number, size: number, resolution: number,
 *   preview_size: number, classes: Class[], pool: Row[], suggested: number[], unseen: string[],
 *   extractor: Extractor, jobs: Job[], photos: {id: number, state: string}[], judge: boolean,
 *   min_pixels: number, photos_available: boolean, experiment: string, last_event: string}} State
 */

/**
 * The session. Events: `state` (all of it is new), `job`, `extractor`, `annotation`, `online`,
 * `saving` and `conflict`; what they are about is their `detail`.
 */
export class Session extends EventTarget {
  /** @param {State} state */
  constructor(state) {
    super();
    this.state = state;
    this.online = true;
    /** @type {Map<number, Job>} */
    this.jobs = new Map(state.jobs.map((job) => [job.id, job]));
    this.feed = new Feed(
      state.last_event,
      (name, data) => this.take(name, data),
      (online) => this.tell("online", (this.online = online)),
    );
  }

  static async begin() {
    return new Session(await json("/api/session"));
  }

  /** @param {string} name @param {any} [detail] */
  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** @param {string} name @param {(detail: any) => void} then */
  on(name, then) {
    this.addEventListener(name, (event) => then(/** @type {CustomEvent} */ (event).detail));
  }

  /** An event of the server. @param {string} name @param {any} data */
  take(name, data) {
    if (name === "reset") this.renew();
    else if (name === "annotation") this.annotated(data);
    else if (name === "extractor") {
      const { suggested, ...extractor } = data;
      this.state.suggested = suggested ?? this.state.suggested;
      this.state.extractor = extractor;
      this.tell("extractor");
    } else if (name === "lane") this.tell("lane", data);
    else {
      this.jobs.set(data.id, data);
      this.tell("job", data);
    }
  }

  /** Events were missed: all of the state again. */
  async renew() {
    try {
      this.state = await json("/api/session");
    } catch {
      setTimeout(() => this.renew(), 1000);
      return;
    }
    this.jobs = new Map(this.state.jobs.map((job) => [job.id, job]));
    this.tell("state");
  }

  /** @param {{row: number, revision: string, labelled: number, classes: [number, number][]}} data */
  annotated({ row, revision, labelled, classes }) {
    Object.assign(this.state.pool[row], { revision, labelled });
    classes.forEach(([pixels, samples], id) => {
      Object.assign(this.state.classes[id], { labelled: pixels, samples });
    });
    this.tell("annotation", { row, revision });
  }

  /** Jobs that are not over, oldest first. */
  get unfinished() {
    return [...this.jobs.values()].filter((job) => ["queued", "running"].includes(job.state));
  }
}

/** One row's annotation: what is on the disk, what is here, and the way from here to there. */
export class Drawing {
  /** @param {Session} session @param {number} row */
  constructor(session, row) {
    this.session = session;
    this.row = row;
    this.key = `studio ${session.state.study} ${session.state.name} ${row}`;
    this.revision = "";
    /** @type {Uint8Array} the ids of `revision` */
    this.base = new Uint8Array(0);
    /** @type {Uint8Array} */
    this.ids = this.base;
    /** @type {Promise<void> | null} */
    this.saving = null;
    this.wait = 500; // ms before a failed save is tried again
    /** @type {Refused | null} */
    this.trouble = null;
  }

  get dirty() {
    return this.ids.some((id, p) => id !== this.base[p]);
  }

  /** Get what is on the disk; strokes that an earlier page of this tab could not save come on top. */
  async load() {
    const { ids, revision } = await annotation(this.row);
    [this.base, this.ids, this.revision] = [ids, ids.slice(), revision];
    const kept = sessionStorage.getItem(this.key);
    if (!kept) return;
    const [base, mine] = kept.split(" ").map(unbase64);
    if (mine.length === ids.length) this.ids = merge(base, mine, ids).merged;
    this.save();
  }

  /** Take over what another tab has saved, unless there are strokes here. */
  async renew() {
    if (this.saving || this.dirty) return false;
    const { ids, revision } = await annotation(this.row);
    if (this.saving || this.dirty || revision === this.revision) return false;
    [this.base, this.ids, this.revision] = [ids, ids.slice(), revision];
    return true;
  }

  /** Bring the ids to the disk; one request at a time, and again until it has worked. */
  save() {
    this.saving ??= this.send().finally(() => {
      this.saving = null;
      this.session.tell("saving", this);
      if (this.dirty && !this.trouble) this.save();
    });
    this.session.tell("saving", this);
    return this.saving;
  }

  async send() {
    while (this.dirty) {
      const ids = this.ids.slice();
      try {
        const { revision } = await putAnnotation(this.row, ids, this.revision);
        [this.base, this.revision, this.trouble, this.wait] = [ids, revision, null, 500];
        sessionStorage.removeItem(this.key);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        if (error.status === 409) await this.reconcile();
        else await this.retry(error);
      }
    }
    sessionStorage.removeItem(this.key);
    this.trouble = null;
  }

  /** Keep the strokes in the tab and wait. @param {Refused} error */
  async retry(error) {
    this.trouble = error;
    try {
      sessionStorage.setItem(this.key, `${base64(this.base)} ${base64(this.ids)}`);
    } catch {
      // The browser keeps no more: the strokes are in the page itself.
    }
    this.session.tell("saving", this);
    await new Promise((resolve) => setTimeout(resolve, this.wait));
    this.wait = Math.min(2 * this.wait, 8000);
  }

  /** Another tab was quicker: its strokes and these; who wins where both painted, a person says. */
  async reconcile() {
    const theirs = await annotation(this.row).catch(() => null);
    if (!theirs) {
      await this.retry(new Refused(0, { got: "no answer", wanted: "one", remedy: "wait" }));
      return;
    }
    const mine = this.ids.slice();
    const { merged, contested } = merge(this.base, mine, theirs.ids);
    const keep = contested
      ? await new Promise((resolve) =>
          this.session.tell("conflict", { drawing: this, contested, merged, theirs, resolve }),
        )
      : "merged";
    const chosen = keep === "theirs" ? merge(this.base, theirs.ids, mine).merged : merged;
    const later = merge(mine, this.ids, chosen).merged; // strokes while the question was open
    [this.base, this.revision, this.ids] = [theirs.ids, theirs.revision, later];
    this.session.tell("merged", this);
  }

  /** Pixels that are labelled here. */
  get labelled() {
    return this.ids.reduce((sum, id) => sum + Number(id !== NONE), 0);
  }
}
