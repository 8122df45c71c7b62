// A card: one image with its classes and timing, or with its error.

import { classNames, explain, Failure, facts, predict } from "./api.js";
import { ImageView } from "./image.js";
import { knows, language, milliseconds, percent, sizes, words } from "./translations.js";

const SHOWN = 3;
const KNOWN = 10;
const STAGES = ["decode", "preprocess", "inference", "rest"];
let numbered = 0;
// The version of the model that is known to have no heatmaps; another version is asked again.
let unable = null;

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** Announce a text to screen readers, in place of the previous one. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

/** The message to show for a failure. */
export function explanation({ code, values }) {
  // While the service's limits are unknown, its own message says more.
  const needsLimits = ["body_too_large", "too_many_pixels"].includes(code);
  if (!knows(`error.${code}`) || (needsLimits && facts === null)) return words("error.unexpected", values);
  const [size, limit] = sizes(values.size ?? 0, facts?.limits?.max_body_bytes ?? 0);
  const pixels = Math.floor((facts?.limits?.max_pixels ?? 0) / 1e6);
  return words(`error.${code}`, { ...values, size, limit, pixels });
}

export class Card {
  #file;
  #name;
  #answer = null;
  #language = null;
  #roundTrip = 0;
  #failure = null;
  #wait = null;
  #working = false;
  #all = false;
  #pressed = null;
  #maps = new Map();
  #leaving = new AbortController();
  #parts = {
    title: element("h2"),
    remove: element("button", "quiet"),
    state: element("p", "state"),
    error: element("p", "error"),
    again: element("button", "button second"),
    list: element("ol", "classes"),
    more: element("button", "quiet"),
    how: element("p", "note"),
    time: element("div", "time"),
  };

  /** `name` and `credit` are functions, since the language may change; `removed` is called when the visitor removes the card. */
  constructor(file, { name, credit, removed }) {
    this.#file = file;
    this.#name = name;
    this.image = new ImageView(file, name, credit);
    this.node = element("article", "card");
    const id = `card-${++numbered}`;
    const { title, remove, state, error, again, list, more, how, time } = this.#parts;
    title.id = id;
    how.id = `${id}-how`;
    list.id = `${id}-classes`;
    title.tabIndex = -1;
    this.node.setAttribute("aria-labelledby", id);
    error.setAttribute("role", "alert");
    more.setAttribute("aria-controls", list.id);
    for (const button of [remove, again, more]) button.type = "button";
    remove.addEventListener("click", () => removed(this));
    again.addEventListener("click", () => {
      title.focus(); // the button disappears; the focus stays on this card
      this.classify();
    });
    more.addEventListener("click", () => {
      this.#all = !this.#all;
      this.render();
    });
    const head = element("div", "head");
    head.append(title, remove);
    const seen = element("div", "seen");
    seen.append(state, error, again, how, list, more, time);
    this.node.append(head, this.image.node, seen);
    this.render();
  }

  /** Why this card has no answer, or null. */
  get failure() {
    return this.#failure;
  }

  /** Remove the card from the page and abort its requests. */
  discard() {
    this.#leaving.abort();
    this.image.discard();
    this.node.remove();
  }

  async classify() {
    if (this.#working) return;
    this.#working = true;
    this.#failure = null;
    this.render();
    try {
      const known = facts === null ? null : Math.min(KNOWN, facts.metadata.num_classes);
      let begun = 0;
      const waits = (wait) => this.#waits(wait, () => (begun = performance.now()));
      begun = performance.now();
      this.#language = language();
      this.#answer = await predict(this.#file, known, this.#leaving.signal, waits);
      this.#roundTrip = performance.now() - begun;
      if (facts !== null && facts.model.version !== this.#answer.model.version) {
        document.dispatchEvent(new Event("other-model"));
      }
      await this.rename();
      const [first] = this.#answer.predictions;
      announce(words("seen", { name: this.#name(), label: first.label, percent: percent(first.score) }));
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#working = false;
      this.render();
    }
  }

  /** Show class names in the page's language, without another inference. */
  async rename() {
    // The names are those of the current model; an answer of another model keeps its own.
    if (this.#answer === null || this.#language === language()) return;
    if (facts?.model.version !== this.#answer.model.version) return;
    const names = await classNames();
    this.#language = language();
    for (const prediction of this.#answer.predictions) prediction.label = names[prediction.class_id] ?? prediction.label;
    this.render();
  }

  render() {
    const { title, remove, state, error, again, list, more, how, time } = this.#parts;
    title.textContent = this.#name();
    remove.textContent = words("remove.short");
    remove.setAttribute("aria-label", words("remove", { name: this.#name() }));
    state.textContent = this.#wait ? words("busy", this.#wait) : words("looking");
    state.hidden = !this.#working;
    this.node.classList.toggle("working", this.#working);
    const text = this.#failure === null ? "" : explanation(this.#failure);
    if (error.textContent !== text) error.textContent = text; // screen readers read out every change
    again.textContent = words("again");
    again.hidden = this.#failure === null || !this.#failure.passes;
    list.setAttribute("aria-label", words("predictions", { name: this.#name() }));
    this.image.render();
    const predictions = this.#answer?.predictions ?? [];
    for (const part of [list, time]) part.hidden = predictions.length === 0;
    more.hidden = predictions.length <= SHOWN;
    more.textContent = this.#all ? words("fewer") : words("more", { count: predictions.length - SHOWN });
    more.setAttribute("aria-expanded", String(this.#all));
    const version = this.#answer?.model.version;
    const told = facts?.model.version === version && facts?.outputs?.feature_map === null;
    const cannot = told || (unable !== null && unable === version);
    how.textContent = words(cannot ? "heat.unable" : "heat.how");
    how.hidden = predictions.length === 0;
    this.#list(predictions.slice(0, this.#all ? KNOWN : SHOWN), cannot);
    if (this.#answer !== null) this.#times();
  }

  // Reuse rows, so that the focused one stays focused.
  #list(predictions, cannot) {
    const { list, how } = this.#parts;
    while (list.children.length > predictions.length) list.lastChild.remove();
    predictions.forEach(({ class_id, label, score }, index) => {
      const tag = cannot ? "DIV" : "BUTTON";
      let row = list.children[index]?.firstChild;
      if (row?.tagName !== tag) {
        row = element(tag.toLowerCase(), "class");
        row.append(element("span", "label"), element("span", "percent"), element("span", "bar"));
        if (!cannot) {
          row.type = "button";
          row.setAttribute("aria-describedby", how.id);
          row.addEventListener("click", () => this.#toggle(this.#answer.predictions[index].class_id));
        }
        const item = element("li");
        item.append(row);
        if (index < list.children.length) list.children[index].replaceWith(item);
        else list.append(item);
      }
      const [name, share, bar] = row.children;
      name.textContent = label;
      share.textContent = percent(score);
      bar.style.setProperty("--score", score);
      if (!cannot) row.setAttribute("aria-pressed", String(this.#pressed === class_id));
    });
  }

  async #toggle(classId) {
    if (this.#pressed === classId) {
      this.#pressed = null;
      this.image.hideMap();
      announce(words("heat.gone"));
      this.render();
      return;
    }
    this.#pressed = classId;
    this.#failure = null;
    this.render();
    const label = () => this.#answer.predictions.find(({ class_id }) => class_id === classId).label;
    try {
      if (!this.#maps.has(classId)) {
        announce(words("heat.loading"));
        this.#maps.set(classId, await explain(this.#file, classId, this.#leaving.signal, (wait) => this.#waits(wait)));
      }
      if (this.#pressed !== classId) return; // another class was selected meanwhile
      this.image.show(this.#maps.get(classId), label);
      announce(words("heat.announced", { label: label() }));
    } catch (error) {
      if (this.#pressed === classId) {
        this.#pressed = null;
        this.image.hideMap();
      }
      if (error instanceof Failure && ["output_unavailable", "not_found"].includes(error.code)) {
        unable = this.#answer.model.version;
        announce(words("heat.unable"));
        document.dispatchEvent(new Event("unable"));
      } else {
        this.#fail(error);
      }
    }
    this.render();
  }

  #waits(wait, resumed = () => {}) {
    if (wait !== null && this.#wait === null) announce(words("busy", wait));
    this.#wait = wait;
    if (wait === null) resumed();
    this.render();
  }

  #fail(error) {
    if (this.#leaving.signal.aborted) return;
    if (!(error instanceof Failure)) throw error;
    this.#wait = null;
    this.#failure = error;
    if (error.code === "unauthorized") document.dispatchEvent(new Event("unauthorized"));
  }

  #times() {
    const { time } = this.#parts;
    const { image, timing_ms: spent } = this.#answer;
    const stages = { ...spent, rest: Math.max(this.#roundTrip - spent.total, 0) };
    const total = STAGES.reduce((sum, stage) => sum + stages[stage], 0) || 1;
    const bar = element("div", "stages");
    bar.setAttribute("aria-hidden", "true");
    const key = element("ul", "stage-key");
    key.setAttribute("aria-label", words("time"));
    for (const stage of STAGES) {
      const part = element("span", `stage ${stage}`);
      part.style.setProperty("--share", stages[stage] / total);
      bar.append(part);
      key.append(element("li", stage, `${words(`time.${stage}`)} ${milliseconds(stages[stage])}`));
    }
    const notes = [words("image.facts", image), words("time.total", { total: milliseconds(this.#roundTrip) })];
    time.replaceChildren(bar, key, element("p", "note", notes.join(" · ")));
  }
}
