// One picture: what it shows, what the service says of it, and what speaks for that.

import { meet, model } from "./classifier.js";
import { paint } from "./heatmap.js";
import { withinLimits } from "./limits.js";
import { $, announce, duration, percent, say } from "./page.js";
import { CLICKED, HEATMAP, PICTURE, Problem, ask, enqueue, inPlainWords, isOpen } from "./service.js";

const SHOWN = 5; // bars until 'show all'
const MOST_NAMED = 5; // of the classes that a picture may be of
const heatmapWanted = { show: true, strength: 80 }; // what the next card starts with: the last choice made

const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) target.card.seen();
});

/** Whether the answer can be relied on; empty if there is nothing to say. */
function inWords({ label, unknown, set, ask }) {
  if (ask && !unknown) return `Ask a person: that is better than to rely on ‘${label}’, by what mistakes cost.`;
  if (unknown) return `It is unlike the pictures that this classifier was trained with; of its classes, ‘${label}’ is the most like it.`;
  if (!set || set.length < 2) return "";
  const names = set.map((name) => `‘${name}’`);
  const listed = names.length <= MOST_NAMED ? names : [...names.slice(0, MOST_NAMED - 1), `${names.length - MOST_NAMED + 1} others`];
  return `It may be ${listed.slice(0, -1).join(", ")} or ${listed.at(-1)}: which one is not certain.`;
}

/** `changed()` is called when there is news, `removed(card)` when its button is pressed. */
export class Card {
  constructor(file, { changed, removed }) {
    this.changed = changed;
    this.removed = removed;
    this.file = file;
    this.name = file.name || "pasted picture";
    this.stop = new AbortController();
    this.explanations = new Map(); // label → a promise of its heatmap
    this.result = null; // the service's prediction
    this.label = null; // the class that is explained
    this.element = $("#card").content.firstElementChild.cloneNode(true);
    this.element.card = this;
    this.fill();
  }

  $(selector) {
    return $(selector, this.element);
  }

  fill() {
    this.$(".file").textContent = this.name;
    this.$("article").setAttribute("aria-label", this.name);
    const remove = this.$(".remove");
    remove.setAttribute("aria-label", `Remove ${this.name}`);
    remove.onclick = () => this.removed(this);
    this.$(".again").onclick = () => this.start();
    this.$(".show").checked = heatmapWanted.show;
    this.$(".strength").value = heatmapWanted.strength;
    this.$(".show").onchange = ({ target }) => {
      heatmapWanted.show = target.checked;
      this.explain();
    };
    this.$(".strength").oninput = ({ target }) => {
      heatmapWanted.strength = target.value;
      this.showHeatmap();
    };
    this.url = URL.createObjectURL(this.file);
    this.preview = this.showPreview();
  }

  /** The picture's size, once it is known; null where the browser cannot show it. */
  showPreview() {
    this.isShown = true; // a heatmap says nothing without the picture below it
    const image = this.$("img");
    image.alt = this.name;
    return new Promise((done) => {
      image.onload = () => {
        this.setRatio(image.naturalWidth, image.naturalHeight);
        done({ width: image.naturalWidth, height: image.naturalHeight });
      };
      image.onerror = () => {
        this.isShown = false;
        image.hidden = true;
        this.$(".placeholder").hidden = false;
        this.setRatio(3, 2);
        done(null);
      };
      image.src = this.url;
    });
  }

  setRatio(width, height) {
    if (width && height) this.$(".frame").style.setProperty("--ratio", width / height);
  }

  start() {
    this.problem = null;
    this.$(".problem").hidden = true;
    this.wait(isOpen() ? "Waiting for its turn" : "Waiting for the service");
    enqueue(PICTURE, () => this.classify());
  }

  wait(text) {
    this.$("article").setAttribute("aria-busy", String(text !== ""));
    this.$(".waiting").hidden = text === "";
    this.$(".waiting-text").textContent = text;
  }

  async classify() {
    const signal = this.stop.signal;
    if (signal.aborted) return;
    this.wait("Looking at it");
    try {
      this.body ??= await withinLimits(this.file, await this.preview, model.limits);
      const onWait = ({ status }) => this.wait(status ? "The service is busy; soon again" : "No answer; trying again");
      const { answer, took } = await ask("predict", { body: this.body, signal, onWait });
      const [prediction] = answer.predictions;
      if (prediction.error) throw new Problem(inPlainWords(prediction.error.status), prediction.error);
      this.result = prediction;
      this.showResult(took, answer.milliseconds.total);
      if (answer.model.version !== model.version) {
        model.version = answer.model.version; // a new bundle was put in place
        meet();
      }
    } catch (error) {
      if (signal.aborted) return;
      this.showProblem(error);
    } finally {
      this.changed();
    }
  }

  showProblem(error) {
    this.problem = error;
    this.wait("");
    const known = error instanceof Problem;
    this.$(".plain").textContent = known ? error.message : "This picture could not be sent.";
    const detail = known ? error.detail : String(error);
    say(this.$(".detail"), /^(is|has|cannot) /.test(detail) ? `It ${detail}` : detail); // the service leaves out 'It'
    this.$(".again").hidden = [413, 415, 422].includes(error.status); // the same file would be refused again
    this.$(".problem").hidden = false;
    announce(`${this.name}: ${this.$(".plain").textContent}`);
  }

  showResult(took, inService) {
    const { label, probability, unknown } = this.result;
    this.problem = null;
    this.wait("");
    this.$(".verdict .label").textContent = unknown ? "I do not know this" : label;
    this.$(".probability").textContent = unknown ? "" : percent(probability);
    this.$(".verdict").hidden = false;
    say(this.$(".trust"), inWords(this.result));
    this.showBars();
    if (model.similar && inWords(this.result)) enqueue(HEATMAP, () => this.showSimilar());
    const scaled = this.body === this.file ? "" : ", scaled down to the size the service takes";
    say(this.$(".times"), `${duration(took)} in all, ${duration(inService)} of them in the service${scaled}`);
    announce(`${this.name}: ${unknown ? "I do not know this" : `${label}, ${percent(probability)}`}`);
    this.$("figcaption").hidden = !this.isShown;
    this.label = label;
    this.markBar();
    if (this.isShown) inView.observe(this.element); // from now on: a card that is never looked at costs no heatmap
  }

  /** Of a picture that is unknown or not certain, the training images most like it. */
  async showSimilar() {
    try {
      const { answer } = await ask("similar", { body: this.body, signal: this.stop.signal });
      const rows = answer.similar.map(({ label, picture }) => {
        const [row, image, name] = ["li", "img", "bdi"].map((tag) => document.createElement(tag));
        image.src = picture;
        image.alt = "";
        name.textContent = label;
        row.append(image, name);
        return row;
      });
      this.$(".similar ul").replaceChildren(...rows);
      this.$(".similar").hidden = !rows.length;
    } catch {
      this.$(".similar").hidden = true; // the answer stands without them
    }
  }

  showBars() {
    const list = this.$(".bars");
    const rows = this.result.probabilities.map(({ label, probability }) => {
      const row = $("#bar").content.firstElementChild.cloneNode(true);
      $(".label", row).textContent = label;
      $(".percent", row).textContent = percent(probability);
      $("button", row).disabled = !this.isShown;
      if (this.isShown) $("button", row).title = "Show what speaks for and against this class";
      $("button", row).onclick = () => this.choose(label);
      row.label = label;
      requestAnimationFrame(() => $(".track i", row).style.setProperty("--part", probability));
      return row;
    });
    list.replaceChildren(...rows);
    list.hidden = false;
    this.$(".hint").hidden = !this.isShown;
    const all = this.$(".all");
    const unfold = (every) => {
      rows.forEach((row, i) => (row.hidden = !every && i >= SHOWN));
      all.setAttribute("aria-expanded", String(every));
      all.textContent = every ? `Show the top ${SHOWN}` : `Show all ${rows.length}`;
    };
    all.hidden = rows.length <= SHOWN + 1;
    unfold(all.hidden);
    all.onclick = () => unfold(all.getAttribute("aria-expanded") !== "true");
  }

  choose(label) {
    this.label = label;
    this.$(".show").checked = true;
    this.explain();
  }

  markBar() {
    const shown = this.isShown && this.$(".show").checked;
    for (const row of this.$(".bars").children) {
      $("button", row).setAttribute("aria-pressed", String(shown && row.label === this.label));
    }
    this.$(".legend").classList.toggle("off", !shown);
    this.$(".legend bdi").textContent = this.label;
  }

  seen() {
    inView.unobserve(this.element);
    this.explain(HEATMAP);
  }

  /** Show the heatmap of the chosen class, if heatmaps are wanted. */
  async explain(priority = CLICKED) {
    const label = this.label;
    this.markBar();
    this.heatmap = null;
    this.showHeatmap();
    if (!this.$(".show").checked) return;
    const note = this.$(".heatmap-note");
    if (!this.explanations.has(label)) this.explanations.set(label, this.fetchExplanation(label, priority));
    say(note, "Looking for what mattered …");
    try {
      const explanation = await this.explanations.get(label);
      if (label !== this.label || !this.$(".show").checked) return;
      say(note, "");
      this.heatmap = explanation;
      this.setRatio(explanation.width, explanation.height);
      paint(this.$("canvas"), explanation);
      this.$("canvas").setAttribute("aria-label", `Heatmap: what in the picture speaks for and against '${label}'`);
      this.showHeatmap();
    } catch (error) {
      this.explanations.delete(label); // so that the next click tries again
      if (label === this.label && !this.stop.signal.aborted) say(note, `No heatmap: ${error.detail || error.message}`);
    }
  }

  fetchExplanation(label, priority) {
    const path = `explain?label=${encodeURIComponent(label)}`;
    const job = () => ask(path, { body: this.body, signal: this.stop.signal }).then(({ answer }) => answer);
    return new Promise((done, fail) => enqueue(priority, () => job().then(done, fail)));
  }

  showHeatmap() {
    const canvas = this.$("canvas");
    canvas.hidden = !(this.heatmap && this.$(".show").checked);
    canvas.style.opacity = this.$(".strength").value / 100;
    this.$(".strength").disabled = !this.$(".show").checked;
  }

  close() {
    this.stop.abort();
    URL.revokeObjectURL(this.url);
    inView.unobserve(this.element);
    this.element.remove();
  }
}
