// One result, large: the media, why it is where it is, its moments and metadata.

import { media, thumbnail } from './api.js';
import { explanation } from './explain.js';
import { date, number, percent, t } from './i18n.js';
import { moment } from './media.js';
import { bytes, button, clock, dialog, fileName, h, icon } from './ui.js';
import { shift } from './grid.js';

let box = null;

/** Opens the panel at one of the hits. `asked` is the query, as the server takes it. */
export function open(hits, at, { asked, onLike }) {
  const before = document.activeElement;
  box = dialog({ className: 'details', label: 'details.title', onClose: () => { box = null; before?.focus?.(); } });
  box.addEventListener('keydown', (event) => {
    if (event.target.matches('input, video')) return;
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by && hits[at + by]) { event.preventDefault(); at += by; draw(); }
    if (event.key === 'm') { box.close(); onLike(hits[at]); }
  });
  const draw = () => fill(hits[at], {
    asked, onLike,
    previous: at > 0 ? () => { at -= 1; draw(); } : null,
    next: at < hits.length - 1 ? () => { at += 1; draw(); } : null,
  });
  draw();
}

function fill(hit, { asked, onLike, previous, next }) {
  const stage = h('div', { class: `stage ${hit.kind}` });
  const shown = large(hit);
  stage.append(shown.element);
  const why = h('div', { class: 'why' });
  const explain = button({ icon: 'spark', t: 'details.why', className: 'primary', on: { click: () => explanation(why, { query: asked, id: hit.id }, { stage, shown, hit, trigger: explain }) } });
  box.replaceChildren(
    h('div', { class: 'left' }, stage,
      previous ? button({ icon: 'left', className: 'glass step back', label: 'details.previous', on: { click: previous } }) : null,
      next ? button({ icon: 'right', className: 'glass step on', label: 'details.next', on: { click: next } }) : null),
    h('aside', { class: 'info' },
      h('header', {}, h('h2', {}, fileName(hit.path)),
        h('a', { class: 'button plain icon', href: media(hit.id), target: '_blank', rel: 'noopener', label: 'details.original' }, icon('open')),
        button({ icon: 'close', label: 'app.close', on: { click: () => box.close() } })),
      hit.path.includes('/') ? h('p', { class: 'path' }, hit.path) : null,
      scores(hit),
      h('div', { class: 'actions' }, explain,
        button({ icon: 'like', t: 'card.like', className: 'secondary', on: { click: () => { box.close(); onLike(hit); } } })),
      why,
      hit.moments.length > 0 ? moments(hit, shown) : null,
      hit.text && hit.kind !== 'text' ? h('section', {}, h('h3', { t: 'details.caption' }), h('p', { class: 'quote' }, hit.text)) : null,
      facts(hit), others(hit)));
  box.querySelector('.info header button').focus({ preventScroll: true });
}

function large(hit) {
  if (hit.kind === 'text') return { element: h('article', { class: 'reading' }, h('p', {}, hit.text)), media: null };
  if (hit.kind === 'video') {
    const video = moment(media(hit.id), hit.start_s, hit.end_s, { controls: true });
    video.poster = thumbnail(hit.id, 1024);
    video.addEventListener('error', () => video.replaceWith(still(hit), h('p', { class: 'unplayable', t: 'details.unplayable' })));
    video.play().catch(() => {});
    return { element: framed(hit, video), media: video };
  }
  const image = still(hit);
  return { element: framed(hit, image), media: image };
}

/** A frame of the media's shape, so that it fills the stage and a map fits over it. */
function framed(hit, shown) {
  const { width = 640, height = 480 } = hit.metadata;
  return h('div', { class: 'frame', vars: { ratio: width / height, pixels: width } }, shown);
}

function still(hit) {
  const { width, height } = hit.metadata;
  return h('img', { src: thumbnail(hit.id, 1024), alt: hit.text || fileName(hit.path), width, height });
}

/** Both passes, side by side, and how the hit moved. */
function scores(hit) {
  const bar = (key, value, shown, className) => h('div', { class: `score ${className}` },
    h('span', { t: key }), h('b', {}, shown), h('i', { vars: { part: Math.max(0, Math.min(1, value)) } }));
  const rows = [bar('details.first', hit.recall_score, hit.recall_score.toFixed(3), 'recall')];
  if (hit.rerank_score !== null) rows.push(bar('details.second', hit.rerank_score, percent(hit.rerank_score), 'rerank'));
  const ranks = h('p', { class: 'ranks' }, h('span', { t: ['details.rank_first', { rank: hit.recall_rank }] }), icon('arrow'),
    h('strong', { t: ['details.rank_final', { rank: hit.rank }] }), shift(hit));
  const notes = [t(hit.rerank_score === null ? 'details.explain_first' : 'details.explain_both')];
  if (hit.lexical_score !== null) notes.push(t('details.explain_words', { score: hit.lexical_score.toFixed(2) }));
  if (hit.error) notes.push(t('details.explain_error', { error: hit.error }));
  return h('section', { class: 'scores' }, ranks, ...rows, h('details', {}, h('summary', { t: 'details.what' }), ...notes.map((note) => h('p', {}, note))));
}

/** The stretches of a film that matched; each goes there. */
function moments(hit, shown) {
  const strip = h('div', { class: 'strip', role: 'list' });
  const inOrder = [...hit.moments].sort((a, b) => a.start_s - b.start_s);
  for (const each of inOrder) {
    const score = each.rerank_score === null ? each.score.toFixed(2) : percent(each.rerank_score);
    const go = h('button', {
      type: 'button', class: each.id === hit.id ? 'moment best' : 'moment', label: ['details.moment', { from: clock(each.start_s), to: clock(each.end_s), score }],
      on: {
        click: () => {
          const video = shown.media;
          if (!video?.play) return;
          video.dataset.free = '1';
          video.currentTime = each.start_s;
          video.play().catch(() => {});
          strip.querySelectorAll('.now').forEach((other) => other.classList.remove('now'));
          go.classList.add('now');
        },
      },
    }, h('img', { src: thumbnail(each.id, 192), alt: '', loading: 'lazy' }), h('span', {}, clock(each.start_s)), h('b', {}, score));
    strip.append(h('div', { class: 'one', role: 'listitem' }, go));
  }
  return h('section', {}, h('h3', { t: 'details.moments' }), strip);
}

const NAMES = {
  taken: 'fact.taken', modified: 'fact.modified', size: 'fact.size', duration_s: 'fact.duration', camera: 'fact.camera',
  lens: 'fact.lens', place: 'fact.place', tags: 'fact.tags', rating: 'fact.rating', pixels: 'fact.pixels', exposure: 'fact.exposure', codec: 'fact.codec',
};

function facts(hit) {
  const m = hit.metadata;
  const rows = {
    taken: m.taken && date(m.taken, true),
    pixels: m.width && m.height && `${m.width} × ${m.height}`,
    duration_s: m.duration_s && clock(m.duration_s),
    size: m.size !== undefined && bytes(m.size),
    camera: m.camera,
    lens: m.lens,
    exposure: exposure(m),
    place: m.lat !== undefined && m.lon !== undefined && `${number(m.lat, 4)}, ${number(m.lon, 4)}`,
    rating: m.rating > 0 && '★'.repeat(m.rating),
    codec: [m.format, m.codec].filter(Boolean).join(', '),
    modified: !m.taken && m.modified && date(m.modified, true),
  };
  const list = h('dl', { class: 'facts' });
  for (const [name, value] of Object.entries(rows)) if (value) list.append(h('dt', { t: NAMES[name] }), h('dd', {}, value));
  if (m.tags?.length) list.append(h('dt', { t: NAMES.tags }), h('dd', { class: 'tags' }, ...m.tags.map((tag) => h('span', { class: 'tag' }, tag))));
  return list.children.length ? h('section', {}, h('h3', { t: 'details.facts' }), list) : null;
}

function exposure(m) {
  const seconds = m.exposure_s && (m.exposure_s < 1 ? `1/${Math.round(1 / m.exposure_s)} s` : `${m.exposure_s} s`);
  return [seconds, m.f_number && `f/${m.f_number}`, m.iso_speed && `ISO ${m.iso_speed}`, m.focal_mm && `${number(m.focal_mm, 0)} mm`].filter(Boolean).join('  ');
}

function others(hit) {
  const lists = [['details.copies', hit.copies], ['details.near', hit.near_duplicates]].filter(([, paths]) => paths.length);
  return lists.length ? h('section', {}, ...lists.flatMap(([key, paths]) => [h('h3', { t: key }), h('ul', { class: 'paths' }, ...paths.map((path) => h('li', {}, path)))])) : null;
}
