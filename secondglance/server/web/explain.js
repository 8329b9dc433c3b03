// Why a candidate got its score: a heat map over the picture, and words marked by their strength.
// The colours are anchors of viridis, which looks evenly spaced to the eye (matplotlib, CC0).

import { post } from './api.js';
import { clock, duration, failure, h } from './ui.js';
import { percent, t } from './i18n.js';

const VIRIDIS = [[68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140], [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37]];

/** Colour of a strength in 0..1. */
function viridis(strength) {
  const at = Math.max(0, Math.min(1, strength)) * (VIRIDIS.length - 1);
  const low = Math.min(VIRIDIS.length - 2, Math.floor(at));
  return VIRIDIS[low].map((value, channel) => value + (VIRIDIS[low + 1][channel] - value) * (at - low));
}

/** A canvas of one pixel a region, which the page draws smoothly over the picture. */
export function heatMap({ rows, cols, effects }) {
  const canvas = h('canvas', { width: cols, height: rows });
  const context = canvas.getContext('2d');
  const pixels = context.createImageData(cols, rows);
  const most = Math.max(...effects.flat(), 1e-9);
  effects.flat().forEach((effect, place) => {
    const strength = Math.max(0, effect) / most;
    const [red, green, blue] = viridis(strength);
    pixels.data.set([red, green, blue, 255 * Math.min(1, 0.25 + 0.75 * strength)], place * 4);
  });
  context.putImageData(pixels, 0, 0);
  // Enlarged here, for a browser may draw a small canvas with hard edges.
  const large = h('canvas', { class: 'heat', width: cols * 24, height: rows * 24, role: 'img', label: 'explain.map' });
  const target = large.getContext('2d');
  target.imageSmoothingQuality = 'high';
  target.drawImage(canvas, 0, 0, large.width, large.height);
  return large;
}

/** A text whose words are marked by how much they raised or lowered the score. */
export function marked(text, words) {
  const most = Math.max(...words.map((word) => Math.abs(word.effect)), 1e-9);
  const parts = [];
  let at = 0;
  for (const word of words) {
    if (word.start > at) parts.push(text.slice(at, word.start));
    const raised = word.effect > 0;
    parts.push(h('mark', {
      class: raised ? 'raised' : 'lowered', title: `${raised ? '+' : ''}${word.effect.toFixed(2)}`, vars: { strength: Math.abs(word.effect) / most },
    }, text.slice(word.start, word.end) || word.text));
    at = word.end;
  }
  parts.push(text.slice(at));
  return h('p', { class: 'marked' }, ...parts.filter((part) => part !== ''));
}

/**
 * Asks why and shows it: below, and over the picture of the stage.
 *
 * `place` is emptied; `asked` is the request of `/v1/explain`.
 */
export async function explanation(place, asked, { stage = null, shown = null, hit = null, trigger = null, text = null } = {}) {
  if (trigger) trigger.disabled = true;
  place.replaceChildren(h('p', { class: 'doing' }, h('span', { class: 'spinner' }), h('span', { t: 'explain.doing' })));
  let found;
  try {
    const words = typeof asked.query === 'string' ? asked.query : asked.query.text;
    found = await post('/v1/explain', { ...asked, query_words: Boolean(words) });
  } catch (error) {
    place.replaceChildren(failure(error));
    if (trigger) trigger.disabled = false;
    return;
  }
  const parts = [h('p', { class: 'explain-sum' }, h('strong', {}, percent(found.score)), ' ',
    h('span', { class: 'muted', t: ['explain.sum', { pairs: found.pairs, time: duration(found.timings_ms.total ?? 0) }] }))];
  if (found.regions && stage) parts.push(await overlay(found, stage, shown, hit));
  const queryText = typeof asked.query === 'string' ? asked.query : asked.query.text ?? '';
  if (found.query_words?.length) parts.push(h('h3', { t: 'explain.query_words' }), marked(queryText, found.query_words));
  const texts = found.texts ?? [text ?? hit?.text ?? ''];
  texts.forEach((each, part) => {
    const words = (found.words ?? []).filter((word) => (word.part ?? 0) === part);
    if (words.length) parts.push(h('h3', { t: 'explain.words' }), marked(each, words));
  });
  if (found.query_words?.length || found.words?.length) parts.push(h('p', { class: 'legend-words' }, h('mark', { class: 'raised', vars: { strength: 1 }, t: 'explain.raised' }), ' ', h('mark', { class: 'lowered', vars: { strength: 1 }, t: 'explain.lowered' })));
  for (const warning of found.warnings ?? []) parts.push(h('p', { class: 'notice warn' }, warning));
  if (parts.length === 1) parts.push(h('p', { t: 'explain.nothing' }));
  place.replaceChildren(...parts);
}

/** Draws the map over the picture; of a film over the frame that was looked at. */
async function overlay(found, stage, shown, hit) {
  stage.querySelectorAll('.heat').forEach((old) => old.remove());
  const map = heatMap(found.regions);
  const media = shown?.media;
  const notes = [];
  if (media?.tagName === 'VIDEO') {
    const at = found.at_s ?? hit?.keyframe_s ?? hit?.start_s ?? 0;
    media.dataset.free = '1';
    media.pause();
    media.currentTime = at;
    media.addEventListener('play', () => { map.hidden = true; });
    media.addEventListener('pause', () => { map.hidden = Math.abs(media.currentTime - at) > 0.3; });
    notes.push(h('p', { class: 'muted', t: ['explain.frame', { at: clock(at) }] }));
  }
  (media?.parentElement ?? stage).append(map);
  const slider = h('input', {
    type: 'range', min: 0, max: 100, value: 62, label: 'explain.opacity', vars: { at: '62%' },
    on: { input: () => { map.style.opacity = slider.value / 100; slider.style.setProperty('--at', `${slider.value}%`); } },
  });
  map.style.opacity = 0.62;
  return h('div', { class: 'heat-tools' }, h('div', { class: 'scale' }, h('span', { t: 'explain.little' }), h('i'), h('span', { t: 'explain.much' })),
    h('label', {}, h('span', { t: 'explain.opacity' }), slider), ...notes);
}
