// The page of a server of several libraries: choose one.

import { get, onKeyNeeded } from './api.js';
import * as i18n from './i18n.js';
import { askForKey, language, theme } from './shell.js';
import { drawIcons, failure, h, icon, state } from './ui.js';

const { t } = i18n;
const KINDS = { image: 'libraries.images', video: 'libraries.videos', text: 'libraries.texts' };
const list = document.getElementById('libraries');

/** What a library holds, in a few words. */
function contents(counts) {
  const held = Object.entries(KINDS).filter(([kind]) => counts?.[kind]);
  return held.length ? held.map(([kind, key]) => t(key, { count: counts[kind] })).join(', ') : t('libraries.empty');
}

function card(each) {
  const away = each.state === 'unavailable';
  const said = away ? `${t('libraries.unavailable')}: ${each.reason}` : each.state === 'loading' ? t('libraries.loading') : contents(each.counts);
  const inside = [icon(away ? 'warning' : 'library'), h('div', {}, h('b', {}, each.title), h('span', { class: 'muted' }, said)), away ? null : icon('right')];
  return h('li', {}, away ? h('div', { class: 'panel away' }, ...inside) : h('a', { class: 'panel', href: each.url }, ...inside));
}

async function show() {
  try {
    const found = await get('/libraries');
    list.replaceChildren(...found.map(card));
    if (!found.length) list.replaceChildren(h('li', {}, state({ icon: 'library', title: t('libraries.none') })));
  } catch (error) {
    list.replaceChildren(h('li', {}, failure(error)));
  }
  document.title = `${t('libraries.title')} – secondglance`;
}

async function start() {
  drawIcons(document);
  await i18n.start();
  theme();
  language();
  onKeyNeeded(askForKey);
  document.addEventListener('language', show);
  const session = await get('/v1/session').catch(() => null);
  const key = document.getElementById('key');
  key.hidden = !session?.keys;
  key.addEventListener('click', async () => { if (await askForKey()) await show(); });
  if (session?.required && !session.ok) await askForKey();
  await show();
  document.body.dataset.ready = '1';
}

start();
