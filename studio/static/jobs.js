/** The queue of jobs: what runs, how far it is, and a way to end it. */

import { cancelJob } from "./api.js";
import { byId, h } from "./parts.js";

/** @typedef {import("./session.js").Job} Job */

const SHOWN = 12;

/** @param {Job} job @returns {string} */
export function jobTitle(job) {
  const { request } = job;
  const about = {
    edit: () => `edit of ${request.source}`,
    transfer: () => `edit ${request.edit} on ${request.to}`,
    sample: () => `${request.count} samples`,
    invert: () => `photo ${request.photo}`,
  }[job.kind];
  return `${job.id} · ${about ? about() : job.kind}${job.automatic ? " (by itself)" : ""}`;
}

/** @param {Job} job @returns {string} */
export function jobState(job) {
  if (job.error) return `${job.error.got}; wanted ${job.error.wanted}; ${job.error.remedy}`;
  const { progress, seconds, state } = job;
  if (state === "running" && progress) return `step ${progress.step} of ${progress.of}`;
  return state === "done" && seconds ? `done in ${seconds.toFixed(1)} s` : state;
}

/** The list in the header. */
export class JobList {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.list = byId("jobs");
    app.session.on("job", (job) => this.tell(job));
    app.session.on("state", () => this.draw());
    this.draw();
  }

  /** @param {Job} job */
  tell(job) {
    this.draw();
    if (job.automatic || job.state === "running" || job.state === "queued") return;
    this.app.say(`Job ${jobTitle(job)}: ${jobState(job)}`);
    if (job.error) this.app.note(`Job ${jobTitle(job)}. Got ${jobState(job)}.`, "error");
  }

  draw() {
    const { session } = this.app;
    const open = session.unfinished.length;
    byId("queue-count").textContent = open ? `Jobs: ${open} open` : "Jobs";
    byId("queue").classList.toggle("busy", open > 0);
    const jobs = [...session.jobs.values()].slice(-SHOWN).reverse();
    const focused = document.activeElement?.getAttribute("data-job");
    this.list.replaceChildren(...jobs.map((job) => this.entry(job)));
    if (!jobs.length) this.list.append(h("li", {}, "Nothing has been run yet."));
    if (focused) /** @type {?HTMLElement} */ (this.list.querySelector(`[data-job="${focused}"]`))?.focus();
  }

  /** @param {Job} job */
  entry(job) {
    const running = job.state === "running" || job.state === "queued";
    const { progress } = job;
    const bar = progress
      ? h("progress", { max: progress.of, value: progress.step, "aria-label": jobTitle(job) })
      : "";
    const end = () => this.app.attempt(() => cancelJob(job.id));
    const cancel = h(
      "button",
      { type: "button", "data-job": job.id, "aria-label": `Cancel ${jobTitle(job)}`, onclick: end },
      "Cancel",
    );
    return h(
      "li",
      { "data-state": job.state },
      h("span", { class: "job-title" }, jobTitle(job)),
      h("span", { class: "job-state" }, jobState(job)),
      ...(running ? [bar, cancel] : []),
    );
  }
}
