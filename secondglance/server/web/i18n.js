// Words in the user's language. All of them are in i18n/*.json; elements keep their key, so that
// another language is a walk over the page and nothing is lost.

export const LANGUAGES = ['en', 'zh'];
let words = {};
let fallback = {};
export let language = 'en';

/** Value of local storage, or null where it is empty or forbidden. */
export function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Keeps a value for the next visit, where that is allowed. */
export function store(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Private windows may forbid it.
  }
}

async function load(name) {
  const answer = await fetch(new URL(`./i18n/${name}.json`, import.meta.url));
  return answer.json();
}

/** Loads the language that was chosen, or that the browser asks for. */
export async function start() {
  const wanted = stored('language') ?? (navigator.language || 'en').slice(0, 2).toLowerCase();
  fallback = await load('en');
  await use(LANGUAGES.includes(wanted) ? wanted : 'en');
}

/** Changes the language of the whole page. */
export async function use(name) {
  words = name === 'en' ? fallback : await load(name);
  language = name;
  document.documentElement.lang = name === 'zh' ? 'zh-CN' : 'en';
  translate(document);
  document.dispatchEvent(new CustomEvent('language'));
}

/** The words of a key; `{name}` in them is replaced. With `count`, `key.one` is used for 1. */
export function t(key, values = {}) {
  const single = values.count === 1 ? (words[`${key}.one`] ?? fallback[`${key}.one`]) : undefined;
  const text = single ?? words[key] ?? fallback[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    if (value === undefined) return whole;
    return typeof value === 'number' ? number(value) : String(value);
  });
}

/** A number as the language writes it. */
export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

/** A probability. */
export function percent(value) {
  if (value === null || value === undefined) return '–';
  const shown = value * 100;
  if (shown > 0 && shown < 1) return '<1 %';
  const digits = shown > 99 && shown < 99.95 ? 1 : 0;
  return `${new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(shown)} %`;
}

/** A day, from ISO 8601 or a number of seconds since 1970. */
export function date(value, time = false) {
  const moment = new Date(typeof value === 'number' ? value * 1000 : value);
  if (Number.isNaN(moment.getTime())) return String(value);
  const style = time ? { dateStyle: 'medium', timeStyle: 'short' } : { dateStyle: 'medium' };
  return new Intl.DateTimeFormat(language, style).format(moment);
}

/** Sets the words of an element: `t` its text, `label` for those who cannot see it. */
export function say(element, { t: text, label, placeholder }) {
  for (const [name, value] of Object.entries({ '': text, Label: label, Placeholder: placeholder })) {
    if (value === undefined) continue;
    const [key, values] = Array.isArray(value) ? value : [value, undefined];
    element.dataset[`i18n${name}`] = key;
    if (values) element.dataset[`i18n${name}Values`] = JSON.stringify(values);
    else delete element.dataset[`i18n${name}Values`];
  }
  apply(element);
  return element;
}

function apply(element) {
  const { i18n, i18nValues, i18nLabel, i18nLabelValues, i18nPlaceholder } = element.dataset;
  if (i18n) element.textContent = t(i18n, i18nValues && JSON.parse(i18nValues));
  if (i18nLabel) {
    const label = t(i18nLabel, i18nLabelValues && JSON.parse(i18nLabelValues));
    element.setAttribute('aria-label', label);
    if (element.matches('button, a')) element.title = label;
  }
  if (i18nPlaceholder) element.placeholder = t(i18nPlaceholder);
}

/** Sets the words of everything below. */
export function translate(root) {
  root.querySelectorAll('[data-i18n], [data-i18n-label], [data-i18n-placeholder]').forEach(apply);
}
