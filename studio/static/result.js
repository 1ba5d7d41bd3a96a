/** What came of an edit: frames on the way, a verdict, its strength, and the same on other samples. */

import { cancelJob, lookPath, postJob } from "./api.js";
import { jobState } from "./jobs.js";
import { show } from "./overlay.js";
import { counted, h, latest, lookCanvas, percent, sampleFields, slider, spoken } from "./parts.js";

/** @typedef {import("./session.js").Job} Job */

/** The result's place on the screen; of one job at a time. */
export class Result {
  /** @param {import("./app.js").App} app @param {(sample: string) => void} onContinue with an edited sample */
  constructor(app, onContinue) {
    this.app = app;
    this.onContinue = onContinue;
    /** @type {Job | null} */
    this.job = null;
    this.waiting = 0; // for the job of this number
    /** @type {ImageBitmap | null} what is shown, without its mask */
    this.image = null;
    /** @type {Uint8Array | null} */
    this.seen = null;
    this.strengthValue = 1;
    this.canvas = lookCanvas(512, "Result");
    this.canvas.classList.add("result");
    this.renewFrame = latest(() => this.frame());
    this.renewStrength = latest(() => this.look("preview.jpg"));
    this.root = h("div", { class: "result-frame" }, this.canvas, this.makeProgress(), this.makeDone());
  }

  makeProgress() {
    this.bar = h("progress", { hidden: true, max: 1, value: 0, "aria-label": "Steps of the edit" });
    this.words = h("p", { class: "hint" }, "Nothing has been run here yet.");
    const end = () => this.app.attempt(() => cancelJob(this.waiting));
    this.end = h("button", { type: "button", hidden: true, onclick: end }, "Cancel");
    return h("div", { class: "progress" }, this.bar, this.end, this.words);
  }

  makeDone() {
    this.verdict = h("div", { class: "verdict", role: "status" });
    this.scrub = slider(
      "Step",
      { min: 0, max: 0, step: 1, value: 0 },
      (at) => this.step(at),
      (at) => this.stepName(at),
    );
    this.strength = slider(
      "Strength",
      { min: -1, max: 2, step: 0.1, value: 1 },
      (value) => {
        this.strengthValue = value;
        this.renewStrength();
      },
      (value) => value.toFixed(1),
    );
    this.strength.input.addEventListener("change", () => this.app.attempt(() => this.look("image.jpg")));
    const toggle = (/** @type {string} */ name, /** @type {() => void} */ then) => {
      const input = h("input", { type: "checkbox" });
      input.addEventListener("change", then);
      return { input, root: h("label", { class: "check" }, input, ` ${name}`) };
    };
    this.masked = toggle("what is seen in it", () => this.app.attempt(() => this.overlay()));
    this.other = toggle("before", () => this.app.attempt(() => this.compare()));
    this.to = sampleFields("Other sample", this.app.session);
    this.to.value = "seed-7";
    const transfer = () => this.app.attempt(() => this.transfer());
    const go = () => this.job && this.onContinue(this.job.result.sample);
    this.command = h("code", { class: "command" });
    this.done = h(
      "div",
      { class: "done", hidden: true },
      this.verdict,
      h("p", {}, this.masked.root, this.other.root),
      this.scrub.root,
      this.strength.root,
      h("p", {}, "Add it to ", this.to.root, h("button", { type: "button", onclick: transfer }, "Apply")),
      h("button", { type: "button", onclick: go }, "Go on from this result"),
      h("details", {}, h("summary", {}, "The same on the command line"), this.command),
    );
    return this.done;
  }

  /** A job that was asked for. @param {number} id */
  wait(id) {
    this.waiting = id;
    if (this.done) this.done.hidden = true;
    const known = this.app.session.jobs.get(id); // its events may have been quicker
    if (known) this.told(known);
    else if (this.words) this.words.textContent = "queued";
  }

  /** News of a job. @param {Job} job */
  told(job) {
    if (job.id !== this.waiting || !this.bar || !this.words || !this.end) return;
    const { progress } = job;
    this.bar.hidden = false;
    this.bar.max = progress?.of ?? 1;
    this.bar.value = progress?.step ?? 0;
    this.end.hidden = job.state !== "queued" && job.state !== "running";
    const scores = [
      jobState(job),
      ...(progress?.iou != null ? [`loop's region IoU ${percent(progress.iou)}`] : []),
      ...(progress?.lab != null ? [`outside ${progress.lab.toFixed(1)} ΔE`] : []),
    ];
    this.words.textContent = scores.join(" · ");
    if (job.state === "running" && progress?.frame != null) this.renewFrame();
    if (job.state === "done") this.app.attempt(() => this.show(job));
  }

  /** The latest frame of the job that runs. */
  async frame() {
    const job = this.app.session.jobs.get(this.waiting);
    if (!job || job.state !== "running" || !job.progress) return;
    const path = `/api/jobs/${job.id}/frame.jpg?step=${job.progress.frame}`;
    const image = await this.app.looks.picture(path).catch(() => null);
    const now = this.app.session.jobs.get(this.waiting);
    if (image && now?.id === job.id && now.state === "running") this.put(image, null);
  }

  /** A job that is done. @param {Job} job */
  async show(job) {
    this.job = job;
    this.waiting = job.id;
    const { result } = job;
    if (!this.done || !this.scrub || !this.strength || !this.other || !this.masked) return;
    this.done.hidden = false;
    if (this.bar) this.bar.value = this.bar.max;
    if (this.words) this.words.textContent = `${spoken(result.sample)} of ${spoken(result.source)} · ${jobState(job)}`;
    const steps = result.steps ?? [];
    this.scrub.root.hidden = !steps.length;
    this.scrub.input.max = String(Math.max(0, steps.length - 1));
    this.scrub.set(steps.length - 1);
    this.strengthValue = job.request.strength ?? 1;
    this.strength.set(this.strengthValue);
    this.other.input.checked = false;
    if (this.command) this.command.textContent = job.command || "none: it begins at a vector, not at a seed";
    this.judge(job);
    this.seen = null;
    this.put(await this.app.looks.image(result.sample), null);
    if (this.masked.input.checked) await this.overlay();
  }

  /** Who says what. @param {Job} job */
  judge({ kind, result }) {
    const judged = result.judged_by === "judge";
    const who = judged ? "an independent judge" : "the edit loop itself: no judge is configured";
    const iou = judged ? result.judge_iou : result.loop_iou;
    const seen = iou == null ? "nothing was asked to change" : `region IoU ${percent(iou)}`;
    const title = result.success ? "Reached, says" : "Not reached, says";
    const opening = kind === "transfer" ? "The vector was added. So says" : title;
    const entries = [
      ["Region", counted(result.region_pixels, "pixel")],
      ["Judge", judged ? seen : "none"],
      ["The loop's own view", result.loop_iou == null ? "–" : `region IoU ${percent(result.loop_iou)}`],
      ["Outside", `${result.lab_outside?.toFixed(1) ?? "–"} ΔE (CIELAB)`],
      ["Guide", result.guide],
    ];
    this.verdict?.replaceChildren(
      h("p", { class: "title", "data-success": String(result.success ?? "") }, `${opening} ${who}: ${seen}.`),
      h("dl", {}, ...entries.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    );
  }

  /** @param {ImageBitmap} image @param {Uint8Array | null} seen */
  put(image, seen) {
    this.image = image;
    show(this.canvas, image, seen, this.app.session.state.classes, 0.55);
  }

  /** @param {number} at index among the steps that were kept */
  stepName(at) {
    const steps = this.job?.result.steps ?? [];
    return `${steps[at] ?? "–"}`;
  }

  /** @param {number} at */
  async step(at) {
    const job = this.job;
    if (!job) return;
    const name = `step_${String(job.result.steps[at]).padStart(3, "0")}.jpg`;
    const image = await this.app.looks.picture(`/api/edits/${job.id}/${name}`).catch(() => null);
    if (image && Number(this.scrub?.input.value) === at) this.put(image, null);
  }

  /** The source with so much of the edit. @param {"image.jpg" | "preview.jpg"} kind */
  async look(kind) {
    const { job, strengthValue: strength } = this;
    if (!job) return;
    const edit = job.request.edit ?? job.id;
    const image = await this.app.looks.picture(lookPath(job.result.source, kind, { edit, strength }));
    if (strength === this.strengthValue) this.put(image, null);
  }

  /** The mask of the result, on and off. */
  async overlay() {
    const { job, image } = this;
    if (!job || !image) return;
    const on = this.masked?.input.checked;
    if (on) this.seen ??= await this.app.looks.mask(job.result.sample);
    this.put(image, on ? this.seen : null);
  }

  /** Before and after. */
  async compare() {
    const { job } = this;
    if (!job) return;
    const sample = this.other?.input.checked ? job.result.source : job.result.sample;
    this.put(await this.app.looks.image(sample), null);
  }

  /** Hold A. @param {boolean} on */
  hold(on) {
    if (!this.other || !this.job || this.other.input.checked === on) return;
    this.other.input.checked = on;
    this.app.attempt(() => this.compare());
  }

  /** The same vector on another sample. */
  async transfer() {
    const { job, to } = this;
    if (!job || !to) return;
    const edit = job.id;
    this.wait(await postJob({ kind: "transfer", edit, to: to.value, strength: this.strengthValue }));
  }
}
