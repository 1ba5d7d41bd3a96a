/** The page: screens, jobs, messages, keys. */

import { AnnotateScreen } from "./annotate.js";
import { cancelJob } from "./api.js";
import { EditScreen } from "./edit.js";
import { JobList } from "./jobs.js";
import { Looks, byId, counted, h } from "./parts.js";
import { PhotoScreen } from "./photo.js";
import { SampleScreen } from "./sample.js";
import { Session } from "./session.js";

const KEYS = {
  "B E F L I": "brush, erase, fill, lasso, pick",
  "1 to 9, 0, Shift + digit": "class; the palette shows which",
  "[ ]": "smaller, larger brush",
  "Wheel, + −, Home": "zoom in and out, all of the image",
  "Space and drag": "pan",
  "X": "mask on and off",
  "Hold A": "before and after",
  "N P": "next, previous sample",
  "Ctrl+Z, Ctrl+Y": "undo, redo",
  "Ctrl+Enter": "run: fit, edit or sample",
  "Esc": "drop a stroke or a selection; else cancel the job that runs",
  "Arrow keys on the image": "move a cursor, with Shift by 8 px; Space or Enter paints",
  "Enter": "accept what is seen inside the lasso",
  "?": "this list",
};

/**
 * @typedef {object} Screen
 * @property {HTMLElement} root
 * @property {import("./easel.js").Easel} [easel]
 * @property {() => void} run Ctrl+Enter
 * @property {(by: number) => void} [next] N and P
 * @property {string[]} kinds of jobs that Esc cancels
 * @property {() => void} [shown] it has come to the front
 */

/** The page of one session. */
export class App {
  /** @param {Session} session */
  constructor(session) {
    this.session = session;
    this.looks = new Looks();
    /** @type {Record<string, any>} */
    this.screens = {};
    this.active = "annotate";
    this.singleKeys = localStorage.getItem("studio single keys") !== "off";
  }

  start() {
    const make = { annotate: AnnotateScreen, edit: EditScreen, sample: SampleScreen, photo: PhotoScreen };
    for (const [name, Kind] of Object.entries(make)) {
      this.screens[name] = new Kind(this);
      byId(name).append(this.screens[name].root);
      byId(`tab-${name}`).addEventListener("click", () => this.open(name));
    }
    byId("tabs").addEventListener("keydown", (event) => this.tabKey(event));
    document.addEventListener("keydown", (event) => this.keyDown(event));
    document.addEventListener("keyup", (event) => this.keyUp(event));
    document.addEventListener("pointerdown", ({ target }) => {
      const queue = /** @type {HTMLDetailsElement} */ (byId("queue"));
      if (!queue.contains(/** @type {Node} */ (target))) queue.open = false;
    });
    window.addEventListener("beforeunload", (event) => {
      if (this.screens.annotate.unsaved) event.preventDefault();
    });
    new JobList(this);
    this.dialogs();
    this.header();
    byId("loading").remove();
    this.open(location.hash.slice(1) in make ? location.hash.slice(1) : "annotate");
  }

  header() {
    const { session } = this;
    const { state } = session;
    document.title = `${state.study} · Studio`;
    const psi = `${state.study}, ψ ${state.psi}`;
    byId("study").textContent = state.name === state.study ? psi : `${psi}, ${state.name}`;
    byId("experiment").textContent = state.experiment;
    byId("copy-experiment").addEventListener("click", async () => {
      await navigator.clipboard.writeText(state.experiment).catch(() => {});
      this.say("copied");
    });
    session.on("extractor", () => this.describe());
    session.on("state", () => this.describe());
    session.on("saving", () => this.describe());
    session.on("online", () => this.describe());
    session.on("lane", ({ lane }) => this.note(`The ${lane} compute process was restarted.`));
    this.describe();
  }

  /** The extractor's state, and what is on the disk. */
  describe() {
    const { extractor } = this.session.state;
    const chip = byId("extractor");
    chip.dataset.state = extractor.state;
    chip.textContent = `${extractor.state} · ${extractor.title}`;
    const { trouble, unsaved } = this.screens.annotate;
    const saved = byId("saved");
    saved.dataset.state = trouble ? "trouble" : unsaved ? "saving" : "saved";
    const text = trouble ? "not saved" : unsaved ? "saving …" : "saved";
    if (saved.textContent !== text) saved.textContent = text;
    const alert = byId("trouble");
    const offline = "No connection to the studio: strokes stay in this tab and are sent again.";
    const words = trouble
      ? `${trouble.message} The strokes are kept in this tab and sent again.`
      : this.session.online
        ? ""
        : offline;
    alert.hidden = !words;
    if (alert.textContent !== words) alert.textContent = words;
  }

  dialogs() {
    byId("keys").append(
      ...Object.entries(KEYS).flatMap(([key, what]) => [
        h("dt", {}, ...key.split(", ").flatMap((k, i) => [i ? ", " : "", h("kbd", {}, k)])),
        h("dd", {}, what),
      ]),
    );
    const help = /** @type {HTMLDialogElement} */ (byId("help"));
    byId("help-button").addEventListener("click", () => help.showModal());
    const single = /** @type {HTMLInputElement} */ (byId("single-keys"));
    single.checked = this.singleKeys;
    single.addEventListener("change", () => {
      this.singleKeys = single.checked;
      localStorage.setItem("studio single keys", single.checked ? "on" : "off");
    });
    const conflict = /** @type {HTMLDialogElement} */ (byId("conflict"));
    this.session.on("conflict", ({ contested, drawing, resolve }) => {
      byId("conflict-text").textContent =
        `Of pool row ${drawing.row}, ${counted(contested, "pixel")} were painted here and in another ` +
        "tab, as different classes. All other strokes of both are kept.";
      conflict.returnValue = "mine";
      conflict.addEventListener("close", () => resolve(conflict.returnValue), { once: true });
      conflict.showModal();
    });
  }

  /** Bring a screen to the front. @param {string} name @param {any} [subject] it is about */
  open(name, subject) {
    this.active = name;
    for (const other of Object.keys(this.screens)) {
      const tab = byId(`tab-${other}`);
      tab.setAttribute("aria-selected", String(other === name));
      tab.tabIndex = other === name ? 0 : -1;
      byId(other).hidden = other !== name;
    }
    history.replaceState(null, "", `#${name}`);
    this.screens[name].shown?.(subject);
  }

  /** To those who listen to the page. @param {string} text */
  say(text) {
    byId("live").textContent = text;
  }

  /** @param {string} text @param {string} [kind] */
  note(text, kind = "note") {
    const close = h("button", { type: "button", "aria-label": "Dismiss", onclick: () => box.remove() }, "×");
    const role = kind === "error" ? "alert" : "status";
    const box = h("div", { class: `message ${kind}`, role }, h("p", {}, text), close);
    byId("messages").append(box);
    while (byId("messages").children.length > 4) byId("messages").firstChild?.remove();
    setTimeout(() => box.remove(), kind === "error" ? 30000 : 6000);
  }

  /** An error as its sentence. @param {unknown} error */
  complain(error) {
    console.warn(error);
    this.note(error instanceof Error ? error.message : String(error), "error");
  }

  /** Do something that may be refused. @template T @param {() => Promise<T>} act @returns {Promise<T | undefined>} */
  async attempt(act) {
    try {
      return await act();
    } catch (error) {
      this.complain(error);
    }
  }

  // Keys

  /** @param {KeyboardEvent} event */
  tabKey(event) {
    const names = Object.keys(this.screens);
    const by = { ArrowRight: 1, ArrowLeft: names.length - 1 }[event.key];
    if (!by) return;
    this.open(names[(names.indexOf(this.active) + by) % names.length]);
    byId(`tab-${this.active}`).focus();
    event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  keyDown(event) {
    if (document.querySelector("dialog[open]") || event.isComposing) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const screen = this.screens[this.active];
    const editor = screen.easel?.editor;
    const onCanvas = editor && target === editor.canvas;
    const free = target === document.body && editor?.hover && event.key === " ";
    let used;
    if (event.ctrlKey || event.metaKey) used = this.chord(event, screen);
    else if (event.altKey) used = false;
    else if (event.key === "Escape") used = this.escape(screen);
    else if ((onCanvas || free) && editor.keyDown(event)) used = true;
    else used = !typing(target) && this.singleKeys && this.single(event, screen);
    if (used) event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  keyUp(event) {
    const { easel } = this.screens[this.active];
    if (event.key.toUpperCase() === "A") easel?.compare(false);
    easel?.editor.keyUp(event);
  }

  /** @param {KeyboardEvent} event @param {Screen} screen */
  chord(event, screen) {
    const key = event.key.toUpperCase();
    if (event.key === "Enter") screen.run();
    else if (typing(/** @type {HTMLElement} */ (event.target))) return false;
    else if (key === "Z") screen.easel?.editor.step(event.shiftKey ? "redo" : "undo");
    else if (key === "Y") screen.easel?.editor.step("redo");
    else return false;
    return true;
  }

  /** @param {KeyboardEvent} event @param {Screen} screen */
  single(event, screen) {
    if (event.key === "?") /** @type {HTMLDialogElement} */ (byId("help")).showModal();
    else if (event.key.toUpperCase() === "N") screen.next?.(1);
    else if (event.key.toUpperCase() === "P") screen.next?.(-1);
    else return screen.easel?.key(event) ?? false;
    return true;
  }

  /** @param {Screen} screen */
  escape(screen) {
    const queue = /** @type {HTMLDetailsElement} */ (byId("queue"));
    if (screen.easel?.editor.cancel()) return true;
    const mine = this.session.unfinished.filter((job) => screen.kinds.includes(job.kind));
    if (mine.length) this.attempt(() => cancelJob(mine[mine.length - 1].id));
    else queue.open = false;
    return true;
  }
}

/** @param {HTMLElement} target @returns {boolean} whether letters go into a field */
function typing(target) {
  return target.matches("input:not([type=range], [type=checkbox]), select, textarea");
}

const session = await Session.begin().catch((error) => {
  byId("loading").textContent = error.message;
  throw error;
});
const app = new App(session);
Object.assign(window, { studio: app }); // for the console, and for tests
app.start();
