// What all pages have: theme, language, and the key of the server.

import { call } from './api.js';
import * as i18n from './i18n.js';
import { dialog, h, icon } from './ui.js';

const { t } = i18n;
let asking = null;

/** Lets the button change between dark and light. */
export function theme() {
  const toggle = document.getElementById('theme');
  const dark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  };
  const draw = () => toggle.replaceChildren(icon(dark() ? 'sun' : 'moon'));
  toggle.addEventListener('click', () => {
    const next = dark() ? 'light' : 'dark';
    document.documentElement.dataset.theme = next;
    i18n.store('theme', next);
    draw();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  draw();
}

/** Lets the button change the language. */
export function language() {
  document.getElementById('language').addEventListener('click', async () => {
    const next = i18n.LANGUAGES[(i18n.LANGUAGES.indexOf(i18n.language) + 1) % i18n.LANGUAGES.length];
    i18n.store('language', next);
    await i18n.use(next);
  });
}

/** Asks for the key of the server; all who wait for it share one dialog. */
export function askForKey() {
  asking ??= new Promise((resolve) => {
    let ok = false;
    const field = h('input', { type: 'password', label: 'key.label', placeholder: 'key.label', autocomplete: 'current-password', required: true });
    const wrong = h('p', { class: 'notice warn', role: 'alert', hidden: true, t: 'key.wrong' });
    const form = h('form', { on: { submit: async (event) => {
      event.preventDefault();
      wrong.hidden = true;
      try {
        await call('POST', '/v1/session', { json: { key: field.value }, patient: false });
        ok = true;
        box.close();
      } catch (error) {
        wrong.hidden = false;
        wrong.textContent = error.status === 401 || error.status === 403 ? t('key.wrong') : error.detail;
        field.select();
      }
    } } }, h('p', { t: 'key.about' }), field, wrong, h('div', { class: 'row end' }, h('button', { type: 'submit', class: 'primary', t: 'key.go' })));
    const box = dialog({ className: 'small key', label: 'key.title', onClose: () => { asking = null; resolve(ok); } }, h('h2', { t: 'key.title' }), form);
    field.focus();
  });
  return asking;
}
