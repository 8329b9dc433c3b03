// The Library tab: what is indexed, what failed and why, models, and index runs.

import { call, get, post } from './api.js';
import { date, number, t } from './i18n.js';
import { button, failure, h, icon, toast } from './ui.js';

const EVERY_MS = 1000;
const MOST_FAILURES = 200;
const OVER = ['done', 'failed', 'cancelled'];

let root;
let parts;
let timer = 0;
let visible = false;

/** Builds the tab, once. */
export function mount(view) {
  root = view;
  parts = { numbers: h('div', { class: 'tiles' }), roots: h('div'), jobs: h('div', { class: 'jobs' }), models: h('div', { class: 'models' }), failures: h('div') };
  const again = button({ t: 'library.index', icon: 'refresh', className: 'primary', on: { click: () => index([]) } });
  const retry = button({ t: 'library.retry', className: 'secondary', on: { click: () => index([], true) } });
  parts.retry = retry;
  root.append(
    h('div', { class: 'titled' }, h('div', {}, h('h1', { t: 'library.title' }), h('p', { class: 'muted', t: 'library.about' })), h('div', { class: 'end' }, again)),
    parts.numbers, parts.jobs,
    h('div', { class: 'columns' },
      h('section', { class: 'panel' }, h('h2', { t: 'library.roots' }), parts.roots),
      h('section', { class: 'panel' }, h('h2', { t: 'library.models' }), parts.models)),
    h('section', { class: 'panel failures' }, h('h2', {}, h('span', { t: 'library.failures' }), retry), parts.failures));
  document.addEventListener('language', () => { if (visible) refresh(); });
}

/** Reads everything again, and follows index runs as long as the tab is looked at. */
export async function show() {
  visible = true;
  await refresh();
}

/** Stops following. */
export function hide() {
  visible = false;
  clearTimeout(timer);
}

async function refresh() {
  await Promise.all([section(parts.roots, drawLibrary), section(parts.models, drawModels), section(parts.jobs, follow)]);
}

async function section(place, draw) {
  try {
    await draw();
  } catch (error) {
    place.replaceChildren(failure(error));
  }
}

async function drawLibrary() {
  const found = await get('/v1/library');
  const tile = (value, key) => h('div', { class: 'tile' }, h('b', {}, number(value)), h('span', { t: key }));
  const { counts } = found;
  parts.numbers.replaceChildren(
    tile(found.roots.reduce((sum, each) => sum + each.files, 0), 'library.files'), tile(found.vectors, 'library.vectors'),
    tile(found.roots.length, 'library.folders'), tile(found.failure_count ?? counts?.failed ?? 0, 'library.failed'));
  const facts = [['library.preset', found.preset], ['library.store', [found.store, found.index].filter(Boolean).join(', ')], ['library.embedder', short(found.embedder)], ['library.reranker', short(found.reranker)]];
  parts.roots.replaceChildren(
    found.roots.length ? h('ul', { class: 'roots' }, ...found.roots.map((each) => h('li', {},
      icon(each.present ? 'library' : 'warning'), h('div', {}, h('b', {}, each.name), h('span', { class: 'muted' }, each.present ? t('library.count', { count: each.files }) : t(each.absence === 'empty' ? 'library.empty' : 'library.absent'))),
      button({ icon: 'refresh', label: ['library.index_one', { name: each.name }], disabled: !each.present, on: { click: () => index([each.name]) } }))))
      : h('p', { class: 'muted', t: 'library.no_roots' }),
    h('dl', { class: 'facts' }, ...facts.filter(([, value]) => value).flatMap(([key, value]) => [h('dt', { t: key }), h('dd', {}, value)])));
  drawFailures(found.failures, found.failure_count ?? found.failures.length);
}

const short = (name) => String(name ?? '').split(' ')[0];

function drawFailures(failures, count) {
  parts.retry.hidden = !count;
  if (!failures.length) {
    parts.failures.replaceChildren(h('p', { class: 'muted calm' }, icon('check'), h('span', { t: 'library.no_failures' })));
    return;
  }
  const list = h('ul', { class: 'failed' });
  const note = h('p', { class: 'muted' });
  const draw = () => {
    const words = field.value.toLowerCase();
    const kept = failures.filter((each) => `${each.path} ${each.reason}`.toLowerCase().includes(words));
    list.replaceChildren(...kept.slice(0, MOST_FAILURES).map((each) => h('li', {}, h('b', {}, each.path), h('span', {}, each.reason))));
    note.textContent = t('library.failures_shown', { shown: Math.min(kept.length, MOST_FAILURES), all: count });
  };
  const field = h('input', { type: 'search', placeholder: 'library.failures_filter', label: 'library.failures_filter', on: { input: draw } });
  parts.failures.replaceChildren(field, list, note);
  draw();
}

async function drawModels() {
  const found = await get('/v1/models');
  const models = Object.values(found);
  const loaded = models.some((model) => model.loaded);
  const missing = models.some((model) => !model.loaded);
  const act = (path) => async (event) => {
    event.currentTarget.disabled = true;
    await post(path, {}).catch((error) => toast(error.detail ?? error.message, { kind: 'bad' }));
    await section(parts.models, drawModels);
  };
  const row = (key, model) => h('li', {}, h('i', { class: model.loaded ? 'dot on' : 'dot' }),
    h('div', {}, h('b', { t: key }), h('span', { class: 'muted' }, [short(model.name), t(model.loaded ? 'library.loaded' : 'library.unloaded'), model.loaded && model.memory_mb ? `${number(model.memory_mb)} MB` : ''].filter(Boolean).join(' · '))));
  parts.models.replaceChildren(
    h('ul', { class: 'roots' }, row('library.recall_model', found.recall), row('library.rerank_model', found.rerank)),
    h('div', { class: 'row' }, button({ t: 'library.load', className: 'secondary', disabled: !missing, on: { click: act('/v1/models/load') } }),
      button({ t: 'library.unload', className: 'plain', disabled: !loaded, on: { click: act('/v1/models/unload') } })));
}

async function index(paths, retryFailed = false) {
  try {
    await post('/v1/index', { paths, retry_failed: retryFailed });
  } catch (error) {
    toast(`${error.detail ?? error.message} ${error.remedy ?? ''}`, { kind: 'bad', seconds: 10 });
  }
  await section(parts.jobs, follow);
}

/** Draws the jobs, and looks again while one is under way. */
async function follow() {
  clearTimeout(timer);
  const jobs = await get('/v1/jobs');
  const busy = jobs.filter((job) => !OVER.includes(job.state));
  const last = jobs.filter((job) => OVER.includes(job.state)).sort((a, b) => String(b.ended).localeCompare(String(a.ended)))[0];
  parts.jobs.replaceChildren(...busy.map(underWay), ...(last ? [over(last)] : []));
  if (parts.wasBusy && !busy.length) await section(parts.roots, drawLibrary);
  parts.wasBusy = busy.length > 0;
  if (visible && busy.length) timer = setTimeout(() => section(parts.jobs, follow), EVERY_MS);
}

const STAGES = { scan: 'job.scan', load: 'job.load', embed: 'job.embed', tidy: 'job.tidy', describe: 'job.describe' };
const STATES = { waiting: 'job.waiting', running: 'job.running', done: 'job.done', failed: 'job.failed', cancelled: 'job.cancelled' };

function underWay(job) {
  const { stage = '', done = 0, total = 0, failed = 0 } = job.progress ?? {};
  const part = total > 0 ? Math.min(1, done / total) : 0;
  const cancel = button({ t: 'job.cancel', className: 'plain', on: { click: async () => {
    cancel.disabled = true;
    await call('DELETE', `/v1/jobs/${encodeURIComponent(job.id)}`).catch((error) => toast(error.detail ?? error.message, { kind: 'bad' }));
    await section(parts.jobs, follow);
  } } });
  return h('section', { class: 'panel job', role: 'group' },
    h('div', { class: 'row' }, h('span', { class: 'spinner' }), h('b', { t: STATES[job.state] }), h('span', { class: 'muted' }, [job.message, STAGES[stage] ? t(STAGES[stage]) : '', total ? `${number(done)} / ${number(total)}` : '', failed ? t('job.failures', { count: failed }) : ''].filter(Boolean).join(' · ')), cancel),
    h('div', { class: total ? 'progress' : 'progress unknown', role: 'progressbar', label: 'library.index', 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': Math.round(100 * part) }, h('i', { vars: { part } })));
}

function over(job) {
  const { report, problem } = job;
  const sum = report ? t('job.report', { files: report.files, indexed: report.indexed, failed: report.failed, seconds: Math.round(report.seconds) }) : problem?.detail ?? '';
  return h('p', { class: `notice ${job.state === 'failed' ? 'warn' : ''}` }, icon(job.state === 'done' ? 'check' : 'warning'),
    h('span', {}, h('b', { t: STATES[job.state] }), ' ', sum, job.ended ? h('span', { class: 'muted' }, ` ${date(job.ended, true)}`) : null));
}
