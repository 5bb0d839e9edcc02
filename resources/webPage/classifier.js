// The classifier in the page's head: its name, its labels, how good it is.

import { $, plural, say } from "./page.js";
import { ask, openQueues } from "./service.js";

/** What becomes of pictures, by what the service says it keeps. */
const KEEPS = {
  none: ", and it keeps none",
  uncertain: ", and it keeps those that it is unsure about, to learn from them",
  sample: ", and it keeps some of them, drawn at random, to learn from them",
};

/** What GET /model said. */
export let model = null;

/** Ask the service for its classifier, as long as it takes, and begin. */
export async function meet() {
  const onWait = (problem) => {
    const starting = problem.status === 503 ? "The service is starting." : problem.message;
    say($("#notice"), `${starting} This page tries again by itself.`);
  };
  try {
    model = (await ask("model", { patient: true, onWait })).answer;
  } catch (problem) {
    return say($("#notice"), `${problem.message} ${problem.detail ?? ""}`);
  }
  const warnings = model.drift?.warnings ?? [];
  say($("#notice"), warnings.length ? `${warnings.join(" ")} Its answers may be less reliable than they were.` : "");
  say($("#keeps"), KEEPS[model.keeps] ?? "");
  introduce(model);
  openQueues();
}

function introduce({ name, labels }) {
  const asQuestion = labels.length <= 4 && labels.join().length <= 48;
  $("#name").textContent = name;
  const question = $("#question");
  question.replaceChildren();
  if (asQuestion) {
    labels.forEach((label, i) => {
      const last = i === labels.length - 1;
      question.append(i === 0 ? "" : last ? " or " : ", ", isolated(label), last ? "?" : "");
    });
  } else {
    question.append(`Which of ${labels.length} classes?`);
    const more = labels.length > 12 ? ` and ${labels.length - 12} more` : "";
    say($("#classes"), labels.slice(0, 12).join(", ") + more);
  }
  document.title = `${name}: ${question.textContent}`;
  $("#facts").replaceChildren(...facts(model).map(shown));
  $("#about").hidden = false;
}

function isolated(text) {
  const element = document.createElement("bdi");
  element.textContent = text;
  return element;
}

function shown([term, value, note]) {
  const group = document.createElement("div");
  const [dt, dd, small] = ["dt", "dd", "small"].map((tag) => document.createElement(tag));
  dt.textContent = term;
  dd.textContent = value;
  small.textContent = note;
  if (note) dd.append(small);
  group.append(dt, dd);
  return group;
}

/** What is known of the classifier: [term, value, note]. */
function facts({ version, architecture, input_size: size, views, created, metrics }) {
  const exactly = (part) => `${(100 * part).toFixed(1)}%`;
  const known = [];
  if (metrics?.overall_accuracy !== undefined) {
    const images = metrics.number_of_test_images;
    const [low, high] = metrics.intervals?.overall_accuracy ?? [];
    const interval = low === undefined ? "" : `, 95% interval ${exactly(low)} to ${exactly(high)}`;
    known.push(["Accuracy on the test images", exactly(metrics.overall_accuracy), `of ${plural(images, "image")}${interval}`]);
  }
  const perClass = Object.entries(metrics?.accuracy_per_class ?? {});
  if (perClass.length && perClass.length <= 6) {
    for (const [label, part] of perClass) known.push([`Accuracy on ‘${label}’`, exactly(part), ""]);
  }
  known.push(["Network", architecture, `${size} × ${size} pixels${views > 1 ? `, ${views} views of each picture` : ""}`]);
  known.push(["Version", version, created ? `made on ${new Date(created).toLocaleDateString([], { dateStyle: "medium" })}` : ""]);
  return known;
}
