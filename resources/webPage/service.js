// Talking to the service: waiting when it asks to, its key, a few requests at a time.

import { $, say } from "./page.js";

const AT_ONCE = 3; // requests in flight
const TRIES = 8; // of a request that the service is too busy for
const TRIES_UNANSWERED = 4; // of one that it does not answer at all
const LONGEST_WAIT = 60; // seconds; a service that asks for more is not waited for
const PATIENCE = 120_000; // milliseconds until one request is given up

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** An error in plain words; `detail` is what the service says of it. */
export class Problem extends Error {
  constructor(plain, { status = 0, detail = "" } = {}) {
    super(plain);
    this.status = status;
    this.detail = detail;
  }
}

const PLAIN = {
  0: "The service does not answer. Is it still running?",
  413: "This picture is too large for the service.",
  415: "The service cannot read this kind of file.",
  422: "The service cannot read this file as a picture.",
  429: "The service has too much to do. Try again in a while.",
  503: "The service has too much to do. Try again in a while.",
  504: "The service took too long over this picture.",
};

export const inPlainWords = (status) => PLAIN[status] ?? "The service could not do this.";

let freeAt = 0; // when the service may be asked again (performance.now()): it said so to one request, and all obey
let keyGiven = null; // a promise while the form for the key is open

async function problemOf(response) {
  const told = await response.json().catch(() => ({}));
  const detail = String(told.detail ?? told.title ?? response.statusText);
  return new Problem(inPlainWords(response.status), { status: response.status, detail });
}

/** How long the service asks to wait; NaN if it does not say. */
function secondsAsked(response) {
  const header = response?.headers.get("Retry-After") ?? "";
  return /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
}

/**
 * The service's JSON, and how long the one successful request took. Waits where the service asks to, `patient` for as
 * long as it takes; throws Problem.
 */
export async function ask(path, { body, signal, patient = false, onWait = () => {} } = {}) {
  for (let failures = 0; ; ) {
    while (performance.now() < freeAt) await sleep(freeAt - performance.now());
    await keyGiven;
    signal?.throwIfAborted();
    const started = performance.now();
    let response = null;
    let problem = new Problem(inPlainWords(0));
    const key = sessionStorage.getItem("key");
    try {
      response = await fetch(path, {
        method: body ? "POST" : "GET",
        headers: {
          ...(key && { Authorization: `Bearer ${key}` }),
          ...(body && { "Content-Type": body.type.startsWith("image/") ? body.type : "application/octet-stream" }),
        },
        body,
        cache: "no-store",
        signal: AbortSignal.any([AbortSignal.timeout(PATIENCE), ...(signal ? [signal] : [])]),
      });
      if (response.ok) return { answer: await response.json(), took: performance.now() - started };
      problem = await problemOf(response);
    } catch (error) {
      signal?.throwIfAborted();
      if (error.name === "TimeoutError") throw new Problem(inPlainWords(504));
      response = null; // no connection, or one that broke off
    }
    if (problem.status === 401) {
      askForKey(key);
      continue;
    }
    failures += 1;
    const asked = secondsAsked(response) || 0;
    const tries = problem.status ? TRIES : TRIES_UNANSWERED;
    if (![0, 429, 503].includes(problem.status)) throw problem;
    if (!patient && (failures >= tries || asked > LONGEST_WAIT)) throw problem;
    freeAt = Math.max(freeAt, performance.now() + 1000 * asked);
    onWait(problem);
    await sleep(Math.max(1000 * asked, (250 + 250 * Math.random()) * 2 ** Math.min(failures, 5)));
  }
}

/** Open the form, once for all requests that need a key; `refused` is the key they tried. */
function askForKey(refused) {
  if (refused !== sessionStorage.getItem("key") || keyGiven) return; // another one was given meanwhile
  const form = $("#key");
  const field = $("#key-field");
  sessionStorage.removeItem("key");
  say($("#key-problem"), refused ? "The service does not accept this key." : "");
  form.hidden = false;
  field.focus();
  keyGiven = new Promise((done) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      const key = field.value.trim();
      if (!/^[\x21-\x7e]+$/.test(key)) return say($("#key-problem"), "A key has only letters, digits and signs, no spaces.");
      sessionStorage.setItem("key", key);
      field.value = "";
      form.hidden = true;
      keyGiven = null;
      done();
    };
  });
}

// ---- Jobs: what someone just clicked first, then pictures, then heatmaps

export const CLICKED = 0;
export const PICTURE = 1;
export const HEATMAP = 2;

const queues = [[], [], []];
let running = 0;
let open = false;

export function enqueue(priority, job) {
  queues[priority].push(job);
  work();
}

/** Begin with the jobs: the service is there, and its limits are known. */
export function openQueues() {
  open = true;
  work();
}

export const isOpen = () => open;

function work() {
  while (open && running < AT_ONCE) {
    const job = queues.find((queue) => queue.length)?.shift();
    if (!job) return;
    running += 1;
    job().finally(() => {
      running -= 1;
      work();
    });
  }
}
