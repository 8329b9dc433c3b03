// Elements, icons, messages: what every view is made of. Nothing here writes HTML.

import { say, t } from './i18n.js';

const ICONS = {
  search: 'M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.3 15.3 20 20',
  rank: 'M5 6h14M5 12h10M5 18h6',
  chart: 'M5 20V11M12 20V4M19 20v-6',
  library: 'M4 6.5A1.5 1.5 0 0 1 5.5 5H10l2 2.5h6.5A1.5 1.5 0 0 1 20 9v8.5a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 17.5z',
  moon: 'M19.5 14.2A8 8 0 0 1 9.8 4.5a8 8 0 1 0 9.7 9.7z',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4',
  globe: 'M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17zM3.5 12h17M12 3.5c2.5 2.4 3.8 5.3 3.8 8.5s-1.3 6.1-3.8 8.5c-2.5-2.4-3.8-5.3-3.8-8.5s1.3-6.1 3.8-8.5z',
  help: 'M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17zM9.6 9.5a2.5 2.5 0 1 1 3.6 2.3c-.8.4-1.2 1-1.2 1.7M12 16.6v.1',
  close: 'M6 6l12 12M18 6 6 18',
  image: 'M5.5 4.5h13a1 1 0 0 1 1 1v13a1 1 0 0 1-1 1h-13a1 1 0 0 1-1-1v-13a1 1 0 0 1 1-1zM8.8 7.8a1.3 1.3 0 1 0 0 2.6 1.3 1.3 0 0 0 0-2.6zM19.5 15l-4.5-4.5-9 9',
  film: 'M5 5h14a1 1 0 0 1 1 1v12a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1zM10 9v6l5-3z',
  text: 'M5 6h14M5 10h14M5 14h14M5 18h8',
  arrow: 'M5 12h14M13 6l6 6-6 6',
  left: 'M15 5l-7 7 7 7',
  right: 'M9 5l7 7-7 7',
  sliders: 'M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4',
  up: 'M12 19V6M6 11l6-6 6 6',
  down: 'M12 5v13M6 13l6 6 6-6',
  play: 'M8 5.5v13l10.5-6.5z',
  copies: 'M9 9h10v10H9zM15 9V5H5v10h4',
  like: 'M4 5h7v6H4zM13 5h7v9h-7zM4 13h7v6H4zM13 16h7v3h-7z',
  download: 'M12 4v11M7 10.5l5 5 5-5M5 20h14',
  open: 'M14 4h6v6M20 4l-9 9M18 14v5a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V7a1 1 0 0 1 1-1h5',
  spark: 'M12 3.5l1.9 5.1a2.5 2.5 0 0 0 1.5 1.5l5.1 1.9-5.1 1.9a2.5 2.5 0 0 0-1.5 1.5L12 20.5l-1.9-5.1a2.5 2.5 0 0 0-1.5-1.5L3.5 12l5.1-1.9a2.5 2.5 0 0 0 1.5-1.5z',
  plus: 'M12 5v14M5 12h14',
  refresh: 'M19.5 12a7.5 7.5 0 1 1-2.2-5.3L20 9.3M20 4.5v4.8h-4.8',
  warning: 'M12 4 3 19.5h18zM12 10v4.5M12 17v.1',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  link: 'M10 14a4 4 0 0 0 5.7 0l3-3a4 4 0 0 0-5.7-5.7l-1 1M14 10a4 4 0 0 0-5.7 0l-3 3a4 4 0 0 0 5.7 5.7l1-1',
  grip: 'M9 6v.1M15 6v.1M9 12v.1M15 12v.1M9 18v.1M15 18v.1',
};

/** An icon of 24 units, drawn in the colour of the text. */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.classList.add('i', `i-${name}`);
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/** Puts icons where the page has places for them. */
export function drawIcons(root) {
  root.querySelectorAll('i[data-icon]').forEach((place) => place.replaceWith(icon(place.dataset.icon)));
}

/**
 * An element. `on` are listeners, `t`, `label` and `placeholder` keys of words, `vars` custom
 * properties of its style; all else are attributes (booleans as such).
 */
export function h(name, options = {}, ...children) {
  const { on = {}, t: text, label, placeholder, vars = {}, data = {}, ...attributes } = options;
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key in element && typeof element[key] === 'boolean') element[key] = Boolean(value);
    else if (key === 'value') element.value = value;
    else element.setAttribute(key === 'className' ? 'class' : key, value === true ? '' : value);
  }
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  for (const [key, value] of Object.entries(vars)) element.style.setProperty(`--${key}`, value);
  Object.assign(element.dataset, data);
  say(element, { t: text, label, placeholder });
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button with an icon, words, or both. */
export function button({ icon: drawn, t: text, className = 'plain', ...rest }, ...children) {
  const words = text === undefined ? [] : [h('span', { t: text })];
  const only = drawn && text === undefined && children.length === 0 ? ' icon' : '';
  return h('button', { type: 'button', class: className + only, ...rest },
    drawn ? icon(drawn) : null, ...words, ...children);
}

/** A short message at the edge of the page; returns a function that takes it away. */
export function toast(text, { kind = 'note', seconds = 6 } = {}) {
  const gone = () => note.remove();
  const note = h('div', { class: `toast ${kind}` }, h('span', {}, text),
    button({ icon: 'close', label: 'app.close', on: { click: gone } }));
  document.getElementById('toasts').append(note);
  if (seconds) setTimeout(gone, seconds * 1000);
  return Object.assign(gone, { text: (words) => { note.firstChild.textContent = words; } });
}

/** Says something to those who listen to the page. */
export function announce(text) {
  document.getElementById('status').textContent = text;
}

/** What stands where there is nothing to show: an icon, a title, what to do, and buttons. */
export function state({ icon: drawn, title, text, className = '' }, ...children) {
  return h('div', { class: `state ${className}` }, drawn ? icon(drawn) : null,
    title ? h('h2', {}, title) : null, text ? h('p', {}, text) : null, ...children);
}

/** What went wrong and what to do about it. */
export function failure(problem, ...children) {
  const box = state({ icon: 'warning', title: title(problem), text: problem.detail, className: 'bad' });
  if (problem.remedy) box.append(h('p', { class: 'remedy' }, problem.remedy));
  box.append(...children);
  box.setAttribute('role', 'alert');
  return box;
}

const TITLES = {
  0: 'error.offline', 400: 'error.request', 401: 'error.key', 404: 'error.missing', 413: 'error.large',
  422: 'error.unreadable', 429: 'error.busy', 503: 'error.unavailable',
};

function title(problem) {
  return t(problem.filter ? 'error.filter' : TITLES[problem.status] ?? 'error.other');
}

/** A dialog over the page that closes by Esc, by its button, or by a click beside it. */
export function dialog({ className = '', label, onClose = () => {} }, ...children) {
  const box = h('dialog', { class: className, label }, ...children);
  box.addEventListener('click', (event) => { if (event.target === box) box.close(); });
  box.addEventListener('close', () => { box.remove(); onClose(); });
  document.body.append(box);
  box.showModal();
  return box;
}

/** Seconds as m:ss. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const rest = String(whole % 60).padStart(2, '0');
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${rest}`
    : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')}:${rest}`;
}

/** Milliseconds in a few characters. */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

/** The last part of a path. */
export const fileName = (path) => path.split('/').pop();

/** Bytes as people read them. */
export function bytes(count) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let power = 0;
  while (count >= 1000 && power < units.length - 1) { count /= 1000; power += 1; }
  return `${count < 10 && power ? count.toFixed(1) : Math.round(count)} ${units[power]}`;
}

/** Hands a file to the user. */
export function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h('a', { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Whether things should not move. */
export const still = () => matchMedia('(prefers-reduced-motion: reduce)').matches;
