// Starts the page: tabs, theme, language, keys of the keyboard, and the key of the server.

import { at, get, onKeyNeeded } from './api.js';
import * as evaluate from './evaluate.js';
import * as i18n from './i18n.js';
import * as library from './library.js';
import * as rerank from './rerank.js';
import * as search from './search.js';
import { askForKey, language, theme } from './shell.js';
import { button, dialog, drawIcons, h } from './ui.js';

const { t } = i18n;
const TABS = ['search', 'rerank', 'evaluate', 'library'];
const TITLES = { search: 'tab.search', rerank: 'tab.rerank', evaluate: 'tab.evaluate', library: 'tab.library' };
const lastOf = {}; // where each tab was left
let current = null;
let place = 'secondglance'; // of several libraries the title of this one

/** Shows what the address after `#` says: a tab, and what is in it. */
function route() {
  const [name, parameters = ''] = location.hash.slice(1).split('?');
  const tab = TABS.includes(name) ? name : 'search';
  const changed = tab !== current;
  if (changed && current === 'library') library.hide();
  current = tab;
  lastOf[tab] = parameters ? `#${tab}?${parameters}` : `#${tab}`;
  for (const view of document.querySelectorAll('[data-view]')) view.hidden = view.dataset.view !== tab;
  for (const link of document.querySelectorAll('.tabs [data-tab]')) {
    if (link.dataset.tab === tab) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
    link.setAttribute('href', lastOf[link.dataset.tab] ?? `#${link.dataset.tab}`);
  }
  document.body.dataset.tab = tab;
  const found = new URLSearchParams(parameters);
  if (tab === 'search') search.show(found);
  else if (tab === 'evaluate') evaluate.show(found);
  else if (tab === 'library') library.show();
  const words = tab === 'search' ? found.get('q') : null;
  document.title = `${words || t(TITLES[tab])} – ${place}`;
  if (changed && tab === 'search' && !parameters && matchMedia('(hover: hover)').matches) document.getElementById('q').focus({ preventScroll: true });
}

const KEYS = [['/', 'keys.focus'], ['↑ ↓ ← →', 'keys.arrows'], ['Enter', 'keys.open'], ['Esc', 'keys.close'], ['m', 'keys.like'], ['r', 'keys.pass'], ['?', 'keys.help']];

function help() {
  if (document.querySelector('dialog')) return;
  const box = dialog({ className: 'small help', label: 'app.help' },
    h('header', {}, h('h2', { t: 'keys.title' }), button({ icon: 'close', label: 'app.close', on: { click: () => box.close() } })),
    h('dl', { class: 'keys' }, ...KEYS.flatMap(([key, text]) => [h('dt', {}, ...key.split(' ').map((each) => h('kbd', {}, each))), h('dd', { t: text })])),
    h('p', { class: 'muted', t: 'keys.more' }),
    h('p', {}, h('a', { href: at('/docs'), target: '_blank', rel: 'noopener', t: 'keys.api' })));
}

function keyboard() {
  document.getElementById('help').addEventListener('click', help);
  document.getElementById('skip').addEventListener('click', (event) => { event.preventDefault(); document.getElementById('main').focus(); });
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    const writing = event.target.matches('textarea, select, input:not([type=radio], [type=range], [type=checkbox])');
    if (event.key === 'Escape' && writing) event.target.blur();
    if (writing) return;
    if (event.key === '?') { event.preventDefault(); help(); }
    if (event.key === '/') {
      event.preventDefault();
      if (current !== 'search') { history.pushState(null, '', lastOf.search ?? '#search'); route(); }
      document.getElementById('q').focus();
      document.getElementById('q').select();
    }
    if (current !== 'search') return;
    if (event.key === 'm') search.likeFocused();
    if (event.key === 'r') search.toggleFirst();
  });
}

/** Says which library of several this is, and leads to the others. */
async function sayPlace() {
  const name = location.pathname.match(/\/libraries\/([^/]+)\/$/)?.[1];
  if (!name) return;
  const found = await get('/v1/library').catch(() => null);
  place = found?.title || name;
  const link = document.getElementById('place');
  link.replaceChildren(h('span', {}, place));
  i18n.say(link, { label: ['libraries.all', { name: place }] });
  link.hidden = false;
}

async function start() {
  drawIcons(document);
  await i18n.start();
  theme();
  language();
  keyboard();
  onKeyNeeded(askForKey);
  search.mount();
  rerank.mount(document.getElementById('view-rerank'));
  evaluate.mount(document.getElementById('view-evaluate'));
  library.mount(document.getElementById('view-library'));
  addEventListener('popstate', route);
  addEventListener('address', route);
  const session = await get('/v1/session').catch(() => null);
  if (session?.required && !session.ok) await askForKey();
  await sayPlace();
  route();
  document.body.dataset.ready = '1';
}

start();
