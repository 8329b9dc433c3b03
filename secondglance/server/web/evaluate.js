// The Evaluate tab: reports of `secondglance evaluate`, each in a frame that can reach nothing.

import { at, get } from './api.js';
import { date, t } from './i18n.js';
import { failure, h, icon, state } from './ui.js';

let root;
let reports = [];

/** Builds the tab, once. */
export function mount(view) {
  root = view;
  document.addEventListener('language', () => { if (reports.length) show(new URLSearchParams(location.hash.split('?')[1])); });
}

/** Lists the reports, and shows the one that the address names. */
export async function show(parameters) {
  try {
    reports = await get('/v1/reports');
  } catch (error) {
    root.replaceChildren(failure(error));
    return;
  }
  const title = h('div', { class: 'titled' }, h('div', {}, h('h1', { t: 'evaluate.title' }), h('p', { class: 'muted', t: 'evaluate.about' })));
  if (!reports.length) {
    root.replaceChildren(title, state({ icon: 'chart', title: t('evaluate.none'), text: t('evaluate.none_hint') },
      h('code', { class: 'command' }, 'secondglance evaluate --library DIR --queries queries.jsonl --qrels qrels.txt --out reports/today'),
      h('p', { t: 'evaluate.then' }), h('code', { class: 'command' }, 'secondglance serve --library DIR --reports reports')));
    return;
  }
  const chosen = reports.find((report) => report.name === parameters.get('report')) ?? reports[0];
  const address = at(`/v1/reports/${encodeURIComponent(chosen.name)}`);
  root.replaceChildren(title, h('div', { class: 'reports' },
    h('nav', { class: 'panel', label: 'evaluate.list' }, ...reports.map((report) => h('a', {
      href: `#evaluate?report=${encodeURIComponent(report.name)}`, class: report === chosen ? 'on' : '', 'aria-current': report === chosen ? 'true' : null,
    }, h('b', {}, report.title || report.name), h('span', { class: 'muted' }, [report.created && date(report.created), report.queries && t('evaluate.queries', { count: report.queries })].filter(Boolean).join(', '))))),
    h('div', { class: 'report' }, h('div', { class: 'row end' }, h('a', { class: 'button plain', href: address, target: '_blank', rel: 'noopener' }, icon('open'), h('span', { t: 'evaluate.open' }))),
      h('iframe', { src: address, sandbox: 'allow-scripts', title: chosen.title || chosen.name, loading: 'lazy' }))));
}
