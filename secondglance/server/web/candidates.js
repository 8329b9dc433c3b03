// One side of a pair as the user puts it together: words with pictures and clips.

import { mediaFiles, hasFiles, preview, uploadAll } from './media.js';
import { button, h, icon } from './ui.js';

/** A candidate, or the query: `{text, media}`. */
export const blank = (text = '') => ({ text, media: [] });

/** Whether there is anything in it. */
export const isEmpty = (side) => !side.text.trim() && side.media.length === 0;

/** As the server takes it: words alone are a string. */
export function sent(side) {
  const text = side.text.trim();
  if (!side.media.length) return text;
  const of = (kind) => side.media.filter((item) => item.kind === kind).map((item) => item.reference);
  const found = {};
  if (text) found.text = text;
  if (of('image').length) found.image = of('image');
  if (of('video').length) found.video = of('video');
  return found;
}

/** Lets files be dropped on an element, and pasted into it. */
export function takesFiles(element, take) {
  element.addEventListener('dragover', (event) => { if (hasFiles(event)) { event.preventDefault(); element.classList.add('over'); } });
  element.addEventListener('dragleave', (event) => { if (!element.contains(event.relatedTarget)) element.classList.remove('over'); });
  element.addEventListener('drop', (event) => {
    element.classList.remove('over');
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    take(mediaFiles(event.dataTransfer));
  });
  element.addEventListener('paste', (event) => {
    const files = mediaFiles(event.clipboardData);
    if (files.length) { event.preventDefault(); take(files); }
  });
}

/** A button that opens the file dialog. */
export function filePicker({ t, label, className = 'plain', multiple = true, drawn = 'image' }, take) {
  const input = h('input', {
    type: 'file', accept: 'image/*,video/*', multiple, hidden: true, tabindex: -1,
    on: { change: () => { const files = [...input.files]; input.value = ''; take(files); } },
  });
  return h('span', { class: 'picker' }, button({ icon: drawn, t, label, className, on: { click: () => input.click() } }), input);
}

/**
 * Words and media of one side, to be changed. `changed` is called after each change.
 */
export function editor(side, { placeholder, label, changed, rows = 1 }) {
  const shown = h('div', { class: 'media' });
  const draw = () => {
    shown.replaceChildren(...side.media.map((item) => h('span', { class: 'thumb' }, preview(item, { alt: item.name ?? '' }),
      button({ icon: 'close', className: 'glass small', label: 'rerank.remove_file', on: { click: () => { side.media.splice(side.media.indexOf(item), 1); draw(); changed(); } } }))));
    shown.hidden = !side.media.length;
  };
  const add = async (files) => {
    if (!files.length) return;
    box.classList.add('busy');
    side.media.push(...await uploadAll(files));
    box.classList.remove('busy');
    draw();
    changed();
  };
  const words = h('textarea', {
    rows, placeholder, label, value: side.text, maxlength: 20_000,
    on: { input: () => { side.text = words.value; grow(); changed(); } },
  });
  const grow = () => { words.style.height = 'auto'; if (words.scrollHeight) words.style.height = `${Math.min(220, words.scrollHeight)}px`; };
  const box = h('div', { class: 'editor' }, shown, h('div', { class: 'words' }, words, filePicker({ label: 'rerank.add_file' }, add)));
  takesFiles(box, add);
  draw();
  requestAnimationFrame(grow);
  return box;
}

/** A side, small, not to be changed. */
export function summary(side) {
  return h('div', { class: 'summary' },
    ...side.media.slice(0, 4).map((item) => preview(item, { alt: item.name ?? '' })),
    side.media.length > 4 ? h('span', { class: 'muted' }, `+${side.media.length - 4}`) : null,
    side.text.trim() ? h('p', {}, side.text.trim()) : side.media.length === 1 ? h('p', { class: 'muted' }, side.media[0].name ?? '') : null,
    isEmpty(side) ? icon('text') : null);
}
