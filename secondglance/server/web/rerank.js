// The Rerank tab: a query, candidates of any mix, and their order.

import { get, media as mediaUrl, post, search, thumbnail } from './api.js';
import { blank, editor, filePicker, isEmpty, sent, summary, takesFiles } from './candidates.js';
import { explanation } from './explain.js';
import { saveRanked } from './exports.js';
import { percent, t } from './i18n.js';
import { moment, uploadAll } from './media.js';
import { announce, button, dialog, duration, failure, h, icon, state, toast } from './ui.js';

const AT_ONCE = 8;
/** Documents of one request: each is a step of the progress bar, and scores do not depend on it. */

let root;
let query = blank();
let instruction = '';
let candidates = [];
let ranked = null;
let running = null;
let parts;
let dragged = null;

/** Builds the tab, once. */
export function mount(view) {
  root = view;
  parts = {
    query: h('div'), list: h('ol', { class: 'candidates', label: 'rerank.candidates' }), count: h('span', { class: 'muted' }),
    go: button({ t: 'rerank.go', icon: 'rank', className: 'primary', on: { click: () => (running ? running.abort() : rank()) } }),
    progress: h('div', { class: 'progress', role: 'progressbar', hidden: true, 'aria-valuemin': 0, 'aria-valuemax': 100, label: 'rerank.progress' }, h('i')),
    results: h('div', { class: 'ranked' }),
  };
  const lines = h('textarea', { rows: 2, placeholder: 'rerank.lines_hint', label: 'rerank.lines' });
  const addLines = () => {
    const found = lines.value.split('\n').map((line) => line.trim()).filter(Boolean);
    if (!found.length) { lines.focus(); return; }
    candidates.push(...found.map((line) => blank(line)));
    lines.value = '';
    draw();
  };
  lines.addEventListener('keydown', (event) => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); addLines(); } });
  const take = async (files) => {
    if (!files.length) { toast(t('error.not_media'), { kind: 'bad' }); return; }
    adding.classList.add('busy');
    const found = await uploadAll(files);
    adding.classList.remove('busy');
    candidates.push(...found.map((item) => ({ text: '', media: [item] })));
    draw();
  };
  const adding = h('div', { class: 'adding' }, lines, h('div', { class: 'row' },
    button({ t: 'rerank.add_lines', icon: 'plus', className: 'secondary', on: { click: addLines } }),
    filePicker({ t: 'rerank.add_media', className: 'secondary' }, take), h('span', { class: 'muted hint', t: 'rerank.drop_hint' })));
  const right = h('section', { class: 'panel', data: { side: 'candidates' } }, h('h2', {}, h('span', { t: 'rerank.candidates' }), parts.count), parts.list, adding);
  takesFiles(right, take);
  const told = h('textarea', { rows: 2, placeholder: 'rerank.instruction_hint', label: 'rerank.instruction', on: { input: () => { instruction = told.value; } } });
  root.append(
    h('div', { class: 'titled' }, h('div', {}, h('h1', { t: 'rerank.title' }), h('p', { class: 'muted', t: 'rerank.about' })),
      h('div', { class: 'end' }, button({ t: 'rerank.example', icon: 'spark', className: 'plain', on: { click: example } }),
        button({ t: 'rerank.clear', className: 'plain', on: { click: clear } }))),
    h('div', { class: 'sides' },
      h('section', { class: 'panel', data: { side: 'query' } }, h('h2', { t: 'rerank.query' }), parts.query,
        h('details', { class: 'instruction' }, h('summary', { t: 'rerank.instruction' }), told)),
      right),
    h('div', { class: 'launch' }, parts.go, parts.progress), parts.results);
  draw();
  document.addEventListener('language', () => { if (ranked) render(); counted(); });
}

function draw() {
  parts.query.replaceChildren(editor(query, { placeholder: 'rerank.query_hint', label: 'rerank.query', rows: 2, changed: counted }));
  parts.list.replaceChildren(...candidates.map((each, at) => row(each, at)));
  parts.list.hidden = !candidates.length;
  counted();
}

function counted() {
  const whole = candidates.filter((each) => !isEmpty(each)).length;
  parts.count.textContent = whole ? t('rerank.count', { count: whole }) : '';
  parts.go.disabled = !running && (isEmpty(query) || !whole);
}

/** A candidate in the list: it can be changed, moved and taken away. */
function row(each, at) {
  const move = (to) => {
    candidates.splice(to, 0, ...candidates.splice(candidates.indexOf(each), 1));
    draw();
    parts.list.children[to]?.querySelector(to > at ? '.down' : '.up')?.focus();
  };
  const item = h('li', { class: 'candidate' },
    h('span', { class: 'grip', draggable: 'true', 'aria-hidden': 'true' }, icon('grip'), h('b', {}, String(at + 1))),
    editor(each, { placeholder: 'rerank.candidate_hint', label: ['rerank.candidate', { place: at + 1 }], changed: counted }),
    h('span', { class: 'moves' },
      button({ icon: 'up', className: 'plain small up', label: 'rerank.up', disabled: at === 0, on: { click: () => move(at - 1) } }),
      button({ icon: 'down', className: 'plain small down', label: 'rerank.down', disabled: at === candidates.length - 1, on: { click: () => move(at + 1) } }),
      button({ icon: 'close', className: 'plain small', label: 'rerank.remove', on: { click: () => { candidates.splice(candidates.indexOf(each), 1); draw(); } } })));
  item.querySelector('.grip').addEventListener('dragstart', (event) => {
    dragged = each;
    event.dataTransfer.effectAllowed = 'move';
    event.dataTransfer.setData('text/plain', String(at));
    event.dataTransfer.setDragImage(item, 12, 12);
  });
  item.addEventListener('dragover', (event) => { if (dragged && dragged !== each) { event.preventDefault(); item.classList.add('target'); } });
  item.addEventListener('dragleave', () => item.classList.remove('target'));
  item.addEventListener('drop', (event) => {
    if (!dragged) return;
    event.preventDefault();
    event.stopPropagation();
    const from = candidates.indexOf(dragged);
    dragged = null;
    candidates.splice(at, 0, ...candidates.splice(from, 1));
    draw();
  });
  item.addEventListener('dragend', () => { dragged = null; });
  return item;
}

function clear() {
  running?.abort();
  query = blank();
  candidates = [];
  ranked = null;
  parts.results.replaceChildren();
  draw();
}

/** Scores all candidates, some at a time. */
async function rank() {
  const asked = candidates.filter((each) => !isEmpty(each)).map((each) => ({ text: each.text, media: [...each.media] }));
  const looked = { text: query.text, media: [...query.media] };
  running = new AbortController();
  parts.go.querySelector('span').textContent = t('rerank.stop');
  parts.progress.hidden = false;
  parts.results.replaceChildren();
  const scores = [];
  const warnings = new Set();
  const began = performance.now();
  const body = { query: sent(looked) };
  if (instruction.trim()) body.instruction = instruction.trim();
  try {
    for (let at = 0; at < asked.length; at += AT_ONCE) {
      progress(at / asked.length);
      const found = await post('/v1/rerank', { ...body, documents: asked.slice(at, at + AT_ONCE).map(sent) }, { signal: running.signal });
      for (const result of found.results) scores.push({ ...result, index: result.index + at });
      found.warnings.forEach((warning) => warnings.add(warning));
    }
    ranked = { query: looked, body, ms: performance.now() - began, warnings: [...warnings] };
    ranked.results = scores.sort((a, b) => (b.relevance_score ?? -1) - (a.relevance_score ?? -1) || a.index - b.index)
      .map((score, place) => ({ ...score, rank: place + 1, candidate: asked[score.index] }));
    render();
    announce(t('rerank.done', { count: asked.length }));
    parts.results.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
  } catch (error) {
    if (error.name !== 'AbortError') parts.results.replaceChildren(failure(error));
  } finally {
    running = null;
    parts.progress.hidden = true;
    parts.go.querySelector('span').textContent = t('rerank.go');
    counted();
  }
}

function progress(part) {
  parts.progress.setAttribute('aria-valuenow', String(Math.round(100 * part)));
  parts.progress.firstChild.style.setProperty('--part', part);
}

function exported() {
  return ranked.results.map((result) => ({
    rank: result.rank, index: result.index, relevance_score: result.relevance_score, text: result.candidate.text,
    files: result.candidate.media.map((item) => item.name ?? item.reference), error: result.error ?? null,
  }));
}

function render() {
  const sum = h('div', { class: 'results-head' },
    h('div', { class: 'sum' }, h('strong', { t: ['rerank.done', { count: ranked.results.length }] }), h('span', { class: 'timings' }, h('span', { class: 'total' }, duration(ranked.ms)))),
    h('div', { class: 'end' },
      button({ icon: 'download', label: 'search.save_json', on: { click: () => saveRanked(ranked.body, exported(), 'json') } }, 'JSON'),
      button({ icon: 'download', label: 'search.save_csv', on: { click: () => saveRanked(ranked.body, exported(), 'csv') } }, 'CSV')));
  const list = h('ol', { class: 'ranking', label: 'rerank.results' }, ...ranked.results.map((result) => h('li', {},
    h('button', { type: 'button', class: 'result', on: { click: () => opened(result) } },
      h('b', { class: 'rank' }, String(result.rank)), summary(result.candidate),
      result.error ? h('span', { class: 'error' }, icon('warning'), result.error)
        : h('span', { class: 'bar' }, h('i', { vars: { part: result.relevance_score } }), h('b', {}, percent(result.relevance_score)))))));
  parts.results.replaceChildren(sum, ...ranked.warnings.map((text) => h('p', { class: 'notice warn' }, icon('warning'), h('span', {}, text))), list);
}

/** A ranked candidate, large, with why it got its score. */
function opened(result) {
  const { candidate } = result;
  const stage = h('div', { class: 'stage' });
  const [first] = candidate.media;
  let shown = null;
  if (first) {
    shown = h('img', { src: first.large ?? first.preview, alt: first.name ?? '' });
    if (first.kind === 'video' && first.film) shown = moment(first.film, null, null, { controls: true });
    const frame = h('div', { class: 'frame' }, shown);
    const shape = () => {
      const [width, height] = [shown.naturalWidth || shown.videoWidth, shown.naturalHeight || shown.videoHeight];
      if (width && height) { frame.style.setProperty('--ratio', width / height); frame.style.setProperty('--pixels', width); }
    };
    shown.addEventListener('load', shape);
    shown.addEventListener('loadedmetadata', shape);
    stage.append(frame);
  } else stage.append(h('article', { class: 'reading' }, h('p', {}, candidate.text)));
  const why = h('div', { class: 'why' });
  // Of a query only one picture or clip is taken there.
  const { query: side } = ranked.body;
  const looked = typeof side === 'string' ? side : { ...side, ...(side.image && { image: side.image[0] }), ...(side.video && { video: side.video[0] }) };
  const asked = { query: looked, document: sent(candidate) };
  const trigger = button({ icon: 'spark', t: 'details.why', className: 'primary', disabled: Boolean(result.error), on: { click: () => explanation(why, asked, { stage, shown: { media: shown }, text: candidate.text.trim(), trigger }) } });
  const box = dialog({ className: 'details', label: 'details.title' },
    h('div', { class: 'left' }, stage),
    h('aside', { class: 'info' },
      h('header', {}, h('h2', { t: ['rerank.place', { rank: result.rank, count: ranked.results.length }] }), button({ icon: 'close', label: 'app.close', on: { click: () => box.close() } })),
      h('section', { class: 'scores' }, h('div', { class: 'score rerank' }, h('span', { t: 'rerank.score' }), h('b', {}, percent(result.relevance_score)), h('i', { vars: { part: result.relevance_score ?? 0 } }))),
      result.error ? h('p', { class: 'notice warn' }, result.error) : null,
      h('div', { class: 'actions' }, trigger), why,
      candidate.media.length > 1 ? h('section', {}, h('h3', { t: 'rerank.all_media' }), h('div', { class: 'media' }, ...candidate.media.map((item) => h('img', { src: item.preview, alt: item.name ?? '' })))) : null,
      first && candidate.text.trim() ? h('section', {}, h('h3', { t: 'rerank.words' }), h('p', { class: 'quote' }, candidate.text)) : null));
}

/** Fills in something of the library, or words where it has nothing. */
async function example() {
  const library = await get('/v1/library').catch(() => null);
  const looked = (text, more) => search({ query: { text }, rerank: false, ...more }).then((found) => found.hits).catch(() => []);
  let words = t('rerank.example_query');
  let hits = [];
  if (library === null || library.vectors > 0) {
    // What a text of the library says is likely to be in its pictures, too.
    const [passage] = await looked(words, { k: 1, kind: 'text' });
    if (passage) [words] = passage.text.trim().split(/(?<=[.!?。！？])\s*/);
    words = words.slice(0, 160);
    hits = [...(passage ? [passage] : []), ...await looked(words, { k: 4, kind: 'image' }), ...await looked(words, { k: 2, kind: 'video' })];
  }
  query = blank(words);
  candidates = hits.map((hit) => (hit.kind === 'text' ? blank(hit.text) : {
    text: '', media: [{
      reference: `id:${hit.id}`, kind: hit.kind, name: hit.path.split('/').pop(), preview: thumbnail(hit.id, 192), large: thumbnail(hit.id, 1024),
      film: hit.kind === 'video' ? mediaUrl(hit.id) : null, seconds: hit.metadata.duration_s ?? null,
    }],
  }));
  candidates.push(blank(t('rerank.example_text')), blank(t('rerank.example_other')));
  ranked = null;
  parts.results.replaceChildren(state({ icon: 'rank', text: t('rerank.example_ready') }));
  draw();
}
