// The state of a search, as the form and the address bar hold it. Everything stands after the `#`,
// so that words never reach a log.

import { composed } from './filters.js';

export const KS = [10, 20, 30, 60, 100, 200, 500, 1000];
export const RECALLS = [null, 20, 50, 100, 200, 500, 1000];
export const BUDGETS = [null, 100, 250, 500, 1000, 2000, 5000, 10_000];
export const DEFAULT_K = 30;

const TEXTS = ['q', 'not', 'kind', 'from', 'to', 'path', 'tags', 'filter', 'image', 'video', 'name'];
const NUMBERS = ['k', 'recall', 'budget'];

/** A search for nothing. */
export function empty() {
  return { ...Object.fromEntries(TEXTS.map((key) => [key, ''])), k: DEFAULT_K, recall: null, budget: null };
}

/** Whether there is something to look for. */
export const asksFor = (state) => Boolean(state.q.trim() || state.image || state.video);

/** The part of the address after `#search`. */
export function written(state) {
  const found = new URLSearchParams();
  for (const key of TEXTS) if (state[key]) found.set(key, state[key]);
  for (const key of NUMBERS) {
    if (state[key] !== null && !(key === 'k' && state.k === DEFAULT_K)) found.set(key, state[key]);
  }
  const text = found.toString();
  return text ? `?${text}` : '';
}

/** The state that an address holds; what is no number of a list is left out. */
export function read(parameters) {
  const state = empty();
  for (const key of TEXTS) state[key] = parameters.get(key) ?? '';
  const number = (key, most) => {
    const value = Number(parameters.get(key));
    return Number.isInteger(value) && value > 0 && value <= most ? value : null;
  };
  if (!['', 'image', 'video', 'text'].includes(state.kind)) state.kind = '';
  for (const key of ['from', 'to']) if (!/^\d{4}-\d{2}-\d{2}$/.test(state[key])) state[key] = '';
  state.k = number('k', 1000) ?? DEFAULT_K;
  state.recall = number('recall', 10_000);
  state.budget = number('budget', 600_000);
  return state;
}

/** The request of `POST /v1/search`. */
export function request(state) {
  const query = {};
  if (state.q.trim()) query.text = state.q.trim();
  if (state.image) query.image = state.image;
  if (state.video) query.video = state.video;
  if (state.not.trim()) query.not = state.not.trim();
  const asked = { query, k: state.k };
  if (state.recall) asked.recall = Math.max(state.recall, state.k);
  if (state.kind) asked.kind = state.kind;
  const filter = composed(state);
  if (filter) asked.filter = filter;
  if (state.budget) asked.budget_ms = state.budget;
  return asked;
}

/** How many filters are set, for the button that shows them. */
export function filterCount(state) {
  const set = [state.not, state.from || state.to, state.path, state.tags, state.filter, state.recall, state.budget, state.k !== DEFAULT_K];
  return set.filter(Boolean).length;
}
