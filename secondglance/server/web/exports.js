// Results as files: JSON as the server said it, and CSV for a table.

import { save } from './ui.js';

/** One cell; text that a spreadsheet would take for a formula is made harmless. */
function cell(value) {
  if (value === null || value === undefined) return '';
  let text = Array.isArray(value) ? value.join('; ') : String(value);
  if (typeof value !== 'number' && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

/** A table as CSV (RFC 4180), with a mark by which spreadsheets know UTF-8. */
export function csv(columns, rows) {
  const lines = [columns, ...rows.map((row) => columns.map((name) => row[name]))];
  return `\ufeff${lines.map((line) => line.map(cell).join(',')).join('\r\n')}\r\n`;
}

const HIT = ['rank', 'path', 'kind', 'score', 'recall_rank', 'recall_score', 'lexical_score', 'rerank_score',
  'start_s', 'end_s', 'text', 'copies', 'error', 'id'];

/** Saves the hits that are shown. */
export function saveHits(answer, hits, format) {
  const shown = { ...answer, hits };
  if (format === 'json') save('secondglance.json', `${JSON.stringify(shown, null, 2)}\n`, 'application/json');
  else save('secondglance.csv', csv(HIT, hits), 'text/csv');
}

const RANKED = ['rank', 'index', 'relevance_score', 'text', 'files', 'error'];

/** Saves ranked candidates. */
export function saveRanked(query, results, format) {
  if (format === 'json') save('ranking.json', `${JSON.stringify({ query, results }, null, 2)}\n`, 'application/json');
  else save('ranking.csv', csv(RANKED, results), 'text/csv');
}
