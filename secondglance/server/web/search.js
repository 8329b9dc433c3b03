// The Search tab.

import { get, preview as previewOf, Problem, search, thumbnail } from './api.js';
import { lookAround } from './around.js';
import { open as openDetails } from './details.js';
import { saveHits } from './exports.js';
import { composed } from './filters.js';
import { Grid, keyOf } from './grid.js';
import { number, say, t } from './i18n.js';
import { hasFiles, mediaFiles, preview, upload } from './media.js';
import * as query from './query.js';
import { announce, button, duration, failure, h, icon, state as emptyState, toast } from './ui.js';

const PAGE = 30;
const $ = (id) => document.getElementById(id);

let state = query.empty();
let chip = null; // what the picture or clip of the query looks like
let running = null;
let answer = null; // the last one, and its first pass
let recalled = null;
let firstOnly = false;
let shown = PAGE;
let grid;
let parts;
let watcher;

/** Builds the tab, once. */
export function mount() {
  parts = {
    notices: h('div', { class: 'notices' }),
    head: h('div', { class: 'results-head', hidden: true }),
    grid: h('div', { class: 'grid', role: 'list', label: 'search.results' }),
    tail: h('div', { class: 'tail' }),
  };
  $('results').append(parts.head, parts.notices, parts.grid, parts.tail);
  grid = new Grid(parts.grid, { onOpen: (hit) => details(hit), onLike: like });
  watcher = new IntersectionObserver((seen) => { if (seen.some((entry) => entry.isIntersecting)) more(); }, { rootMargin: '600px' });
  form();
  drops();
  document.addEventListener('language', () => { sliders(); filterNote(); if (answer) render(); else if (!running) blank(); });
}

/** Shows what the address says; called at each change of it. */
export function show(parameters) {
  const asked = query.read(parameters);
  const same = query.written(asked) === query.written(state) && (answer || running);
  state = asked;
  if (chip && chip.reference !== (state.image || state.video)) chip = null;
  fill();
  if (same) return;
  if (query.asksFor(state)) run();
  else blank();
}

function form() {
  $('search-form').addEventListener('submit', (event) => { event.preventDefault(); submit(); });
  $('search-form').addEventListener('input', (event) => { collect(); if (event.target.type === 'range') sliders(); filterNote(); });
  $('search-form').addEventListener('change', (event) => {
    if (event.target.id !== 'q' && event.target.id !== 'pick-file' && query.asksFor(state)) submit();
  });
  $('clear').addEventListener('click', () => { chip = null; Object.assign(state, { q: '', image: '', video: '', name: '' }); go(); $('q').focus(); });
  $('pick').addEventListener('click', () => $('pick-file').click());
  $('pick-file').addEventListener('change', (event) => { bring([...event.target.files]); event.target.value = ''; });
  $('more-filters').addEventListener('click', () => unfold($('filters').hidden));
  $('reset').addEventListener('click', () => {
    state = { ...query.empty(), q: state.q, image: state.image, video: state.video, name: state.name };
    go();
  });
  $('q').addEventListener('paste', (event) => {
    const files = mediaFiles(event.clipboardData);
    if (files.length) { event.preventDefault(); bring(files); }
  });
  $('q').addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown' && grid.hits.length) { event.preventDefault(); grid.focusFirst(); }
    if (event.key === 'Backspace' && !event.target.value && (state.image || state.video)) removeChip();
  });
}

function unfold(open) {
  $('filters').hidden = !open;
  $('more-filters').setAttribute('aria-expanded', String(open));
}

/** Files over the page: any picture or clip may be dropped anywhere. */
function drops() {
  let depth = 0;
  const mine = (event) => hasFiles(event) && !$('view-search').hidden;
  addEventListener('dragenter', (event) => { if (mine(event)) { depth += 1; $('drop').hidden = false; } });
  addEventListener('dragleave', (event) => { if (mine(event)) { depth -= 1; if (depth <= 0) $('drop').hidden = true; } });
  addEventListener('dragover', (event) => { if (hasFiles(event)) event.preventDefault(); });
  addEventListener('drop', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    $('drop').hidden = true;
    if ($('view-search').hidden) return;
    const files = mediaFiles(event.dataTransfer);
    if (files.length) bring(files);
    else toast(t('error.not_media'), { kind: 'bad' });
  });
}

/** Makes a file the query's picture or clip, and searches. */
async function bring(files) {
  if (files.length > 1) toast(t('search.one_file'));
  const waiting = h('span', { class: 'chip loading' }, h('span', { class: 'spinner' }), files[0].name);
  $('query-chips').replaceChildren(waiting);
  try {
    chip = await upload(files[0]);
    const isVideo = chip.kind === 'video';
    Object.assign(state, { image: isVideo ? '' : chip.reference, video: isVideo ? chip.reference : '', name: chip.name });
    collect();
    go();
  } catch (error) {
    fill();
    fail(error);
  }
}

function removeChip() {
  chip = null;
  Object.assign(state, { image: '', video: '', name: '' });
  collect();
  go();
}

/** Looks for what is like a hit. */
function like(hit) {
  if (hit.kind === 'text') {
    state = { ...query.empty(), q: hit.text.slice(0, 300) };
  } else {
    chip = { reference: `id:${hit.id}`, kind: hit.kind, name: hit.path.split('/').pop(), preview: thumbnail(hit.id, 128) };
    const side = hit.kind === 'video' ? 'video' : 'image';
    state = { ...query.empty(), kind: state.kind, [side]: chip.reference, name: chip.name };
  }
  go();
  scrollTo({ top: 0, behavior: 'smooth' });
}

function collect() {
  const data = new FormData($('search-form'));
  for (const name of ['q', 'not', 'kind', 'from', 'to', 'path', 'tags', 'filter']) state[name] = String(data.get(name) ?? '');
  if ($('k').dataset.touched) state.k = query.KS[Number($('k').value)];
  if ($('recall').dataset.touched) state.recall = query.RECALLS[Number($('recall').value)];
  if ($('budget').dataset.touched) state.budget = query.BUDGETS[Number($('budget').value)];
  $('clear').hidden = !query.asksFor(state);
}

function submit() {
  collect();
  if (!query.asksFor(state)) { $('q').focus(); return; }
  $('q').blur(); // so that keys work on the results
  const address = `#search${query.written(state)}`;
  if (address === location.hash) run();
  else go();
}

/** Puts the state into the address; `show` does the rest. */
function go() {
  const address = `#search${query.written(state)}`;
  if (address !== location.hash) history.pushState(null, '', address);
  answer = null;
  dispatchEvent(new Event('address'));
}

/** The form, as the state says. */
function fill() {
  for (const name of ['q', 'not', 'from', 'to', 'path', 'tags', 'filter']) if ($(name).value !== state[name]) $(name).value = state[name];
  document.querySelector(`#kinds input[value="${state.kind}"]`).checked = true;
  const near = (list, value) => Math.max(0, list.indexOf(value));
  $('k').value = near(query.KS, state.k);
  $('recall').value = near(query.RECALLS, state.recall);
  $('budget').value = near(query.BUDGETS, state.budget);
  $('clear').hidden = !query.asksFor(state);
  const reference = state.image || state.video;
  if (reference && !chip) {
    const id = reference.split(':', 2)[1];
    chip = {
      reference, kind: state.video ? 'video' : 'image', name: state.name,
      preview: reference.startsWith('id:') ? thumbnail(id, 128) : previewOf(id),
    };
  }
  $('query-chips').replaceChildren(...(reference ? [h('span', { class: 'chip' }, preview(chip),
    h('span', { class: 'name' }, chip.name || t(chip.kind === 'video' ? 'search.clip' : 'search.picture')),
    button({ icon: 'close', label: 'search.remove_file', on: { click: removeChip } }))] : []));
  for (const name of ['k', 'recall', 'budget']) $(name).dataset.touched = '';
  sliders();
  filterNote();
}

for (const name of ['k', 'recall', 'budget']) $(name).addEventListener('input', () => { $(name).dataset.touched = '1'; });

function sliders() {
  const at = (name, list, value) => ($(name).dataset.touched ? list[Number($(name).value)] : value);
  const k = at('k', query.KS, state.k);
  $('k-value').textContent = number(k);
  const recall = at('recall', query.RECALLS, state.recall);
  $('recall-value').textContent = recall ? number(recall) : t('search.default');
  const budget = at('budget', query.BUDGETS, state.budget);
  $('budget-value').textContent = budget ? duration(budget) : t('search.no_limit');
  for (const name of ['k', 'recall', 'budget']) {
    const range = $(name);
    range.style.setProperty('--at', `${(100 * range.value) / range.max}%`);
    range.setAttribute('aria-valuetext', $(`${name}-value`).textContent);
  }
}

function filterNote() {
  const count = query.filterCount(state);
  $('filter-count').hidden = !count;
  $('filter-count').textContent = String(count);
  const whole = composed(state);
  const note = $('filter-shown');
  note.hidden = !whole || whole === state.filter.trim();
  note.replaceChildren(t('search.whole_filter'), ' ', h('code', {}, whole ?? ''));
}

/** Nothing is looked for: what the page can do. */
async function blank() {
  running?.abort();
  running = null;
  answer = null;
  recalled = null;
  document.body.classList.add('start');
  parts.head.hidden = true;
  parts.notices.replaceChildren();
  parts.tail.replaceChildren();
  parts.grid.style.height = '';
  grid.hits = [];
  grid.shapes = null;
  grid.cards.clear();
  const tips = h('ul', { class: 'tips' },
    ...[['image', 'search.tip_drop'], ['film', 'search.tip_moment'], ['spark', 'search.tip_why']].map(([drawn, key]) => h('li', {}, icon(drawn), h('span', { t: key }))));
  const around = h('div', { class: 'around' });
  parts.grid.replaceChildren(tips, around);
  const library = await get('/v1/library').catch(() => null);
  if (library && library.vectors === 0 && !answer && !running) {
    parts.grid.replaceChildren(emptyState({ icon: 'library', title: t('search.empty_library'), text: t('search.empty_library_hint') },
      h('code', { class: 'command' }, 'secondglance index PATH --library DIR')));
  } else if (library) await lookAround(around, like);
}

/** Asks the server. The last search, if it goes on, is given up. */
async function run() {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  answer = null;
  recalled = null;
  shown = PAGE;
  document.body.classList.remove('start');
  parts.notices.replaceChildren();
  parts.tail.replaceChildren();
  heading({ waiting: 'search.first_pass' });
  if (!grid.cards.size) grid.wait();
  else parts.grid.classList.add('stale');
  try {
    const found = await search(query.request(state), {
      signal: mine.signal,
      onRecall: (first) => {
        if (running !== mine) return;
        recalled = first;
        parts.grid.classList.remove('stale');
        grid.show(first.hits.slice(0, shown), { pending: true, first: true });
        heading({ waiting: 'search.second_pass', count: first.hits.length });
      },
    });
    if (running !== mine) return;
    running = null;
    answer = found;
    render();
    announce(found.hits.length ? t('search.found', { count: found.hits.length }) : t('search.nothing'));
  } catch (error) {
    if (error.name === 'AbortError' || running !== mine) return;
    running = null;
    fail(error);
  } finally {
    parts.grid.classList.remove('stale');
  }
}

function fail(error) {
  const problem = error instanceof Problem ? error : new Problem(-1, { detail: t('error.page', { detail: error.message }) });
  document.body.classList.remove('start');
  parts.head.hidden = true;
  parts.tail.replaceChildren();
  parts.notices.replaceChildren();
  grid.cards.clear();
  grid.hits = [];
  grid.shapes = null;
  parts.grid.style.height = '';
  problem.filter = problem.status === 400 && Boolean(composed(state));
  if (problem.filter) { unfold(true); $('filter').setAttribute('aria-invalid', 'true'); }
  parts.grid.replaceChildren(failure(problem, button({ t: 'error.again', className: 'secondary', icon: 'refresh', on: { click: () => (query.asksFor(state) ? run() : blank()) } })));
}

/** The hits in the order that is looked at. */
function ordered() {
  return firstOnly && recalled ? recalled.hits.map((hit) => ({ ...hit, rank: finalRank(hit) })) : answer.hits;
}

function finalRank(hit) {
  const same = answer.hits.find((other) => keyOf(other) === keyOf(hit));
  return same ? same.rank : hit.recall_rank;
}

function render() {
  $('filter').removeAttribute('aria-invalid');
  const hits = ordered();
  heading({});
  const notes = [...answer.warnings.map((text) => h('p', { class: 'notice warn' }, icon('warning'), h('span', {}, text)))];
  if (answer.message) notes.unshift(h('p', { class: 'notice' }, h('span', {}, answer.message)));
  parts.notices.replaceChildren(...(hits.length ? notes : notes.filter((note) => note.classList.contains('warn'))));
  if (!hits.length) {
    parts.head.hidden = true;
    grid.cards.clear();
    grid.hits = [];
    grid.shapes = null;
    parts.grid.style.height = '';
    const filtered = query.filterCount(state) || state.kind;
    parts.grid.replaceChildren(emptyState({ icon: 'search', title: t('search.nothing'), text: answer.message || t(filtered ? 'search.nothing_filtered' : 'search.nothing_hint') },
      filtered ? button({ t: 'search.reset', className: 'secondary', on: { click: () => { state = { ...query.empty(), q: state.q, image: state.image, video: state.video, name: state.name }; go(); } } }) : null));
    parts.tail.replaceChildren();
    return;
  }
  grid.show(hits.slice(0, shown), { first: firstOnly && recalled !== null });
  tail();
}

function more() {
  if (!answer || shown >= answer.hits.length) return;
  shown += PAGE;
  grid.show(ordered().slice(0, shown), { first: firstOnly && recalled !== null });
  tail();
}

function tail() {
  watcher.disconnect();
  const all = answer.hits.length;
  if (shown < all) {
    const end = h('div', { class: 'sentinel' });
    parts.tail.replaceChildren(end);
    watcher.observe(end);
    return;
  }
  const next = query.KS.find((k) => k > state.k);
  parts.tail.replaceChildren(all >= state.k && next
    ? button({ className: 'secondary', on: { click: () => { state.k = next; go(); } }, icon: 'plus' }, h('span', { t: ['search.more', { count: next }] }))
    : h('p', { class: 'muted', t: 'search.all_shown' }));
}

/** The line above the results: how many, how fast, which pass, export. */
function heading({ waiting, count }) {
  parts.head.hidden = false;
  if (waiting) {
    parts.head.replaceChildren(h('div', { class: 'doing' }, h('span', { class: 'spinner' }), h('span', { t: [waiting, { count: count ?? 0 }] })));
    return;
  }
  const both = recalled !== null;
  const pass = both ? h('div', { class: 'segmented small', role: 'radiogroup', label: 'search.pass' },
    choice('search.pass_first', firstOnly, () => toggleFirst(true)), choice('search.pass_second', !firstOnly, () => toggleFirst(false))) : null;
  parts.head.replaceChildren(
    h('div', { class: 'sum' }, h('strong', { t: ['search.found', { count: answer.hits.length }] }), h('span', { class: 'timings' }, ...timings(answer))),
    h('div', { class: 'end' }, pass,
      button({ icon: 'download', className: 'plain', label: 'search.save_json', on: { click: () => saveHits(answer, ordered(), 'json') } }, 'JSON'),
      button({ icon: 'download', className: 'plain', label: 'search.save_csv', on: { click: () => saveHits(answer, ordered(), 'csv') } }, 'CSV')));
}

function choice(key, checked, pick) {
  return h('label', {}, h('input', { type: 'radio', name: 'pass', checked, on: { change: pick } }), h('span', { t: key }));
}

function timings({ timings_ms: ms }) {
  const shownMs = [['queue', 'time.queue'], ['load', 'time.load'], ['embed', 'time.embed'], ['recall', 'time.recall'], ['rerank', 'time.rerank']];
  const found = shownMs.filter(([name]) => ms[name] >= (name === 'queue' || name === 'load' ? 20 : 0.01))
    .map(([name, key]) => say(h('span', {}), { t: [key, { time: duration(ms[name]) }] }));
  return [...found, h('span', { class: 'total', t: ['time.total', { time: duration(ms.total) }] })];
}

/** Between the order of the first pass and the final one; nothing is asked for. */
export function toggleFirst(wanted = !firstOnly) {
  if (!answer || !recalled || wanted === firstOnly) return;
  firstOnly = wanted;
  const focused = document.activeElement?.name === 'pass';
  render();
  if (focused) parts.head.querySelector('input[name=pass]:checked')?.focus();
  announce(t(firstOnly ? 'search.pass_first' : 'search.pass_second'));
}

/** More like the card that has the focus. */
export function likeFocused() {
  const hit = grid.current();
  if (hit) like(hit);
}

function details(hit) {
  const hits = ordered().slice(0, shown);
  openDetails(hits, hits.indexOf(hits.find((each) => each.id === hit.id)), { asked: query.request(state).query, onLike: like });
}
