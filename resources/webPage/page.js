// Finding and filling elements, numbers as people read them, and what a screen reader hears.

export const $ = (selector, within = document) => within.querySelector(selector);

/** Fill an element, or hide it when there is nothing to say. */
export function say(element, text) {
  element.textContent = text;
  element.hidden = text === "";
}

export function percent(part) {
  if (part > 0 && part < 0.005) return "<1%";
  if (part < 1 && part >= 0.995) return ">99%";
  return `${Math.round(100 * part)}%`;
}

export function duration(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return milliseconds < 1 ? "under 1 ms" : `${Math.round(milliseconds)} ms`;
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

const unheard = [];
let speaking = 0;

/** Let a screen reader hear a few results one by one, many as their number. */
export function announce(text) {
  unheard.push(text);
  speaking ||= setTimeout(() => {
    const texts = unheard.splice(0);
    speaking = 0;
    $("#said").textContent = texts.length > 3 ? `${texts.length} more results` : texts.join(". ");
  }, 400);
}
