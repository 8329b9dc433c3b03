// Filter expressions (docs/filters.md) from what the user filled in. User text is always quoted.

/** A string of the grammar. */
export function quoted(text) {
  const escaped = text.replace(/\\/g, '\\\\').replace(/"/g, '\\"')
    .replace(/\n/g, '\\n').replace(/\r/g, '\\r').replace(/\t/g, '\\t');
  return `"${escaped}"`;
}

/** A pattern that matches what contains the text, which has no wildcards of its own. */
export function containing(text) {
  return quoted(`%${text.replace(/[\\%_]/g, '\\$&')}%`);
}

/** The day after, as 2024-01-31. */
function dayAfter(day) {
  const moment = new Date(`${day}T00:00:00Z`);
  moment.setUTCDate(moment.getUTCDate() + 1);
  return moment.toISOString().slice(0, 10);
}

/** Words between commas. */
export const listed = (text) => text.split(/[,，、;]/).map((word) => word.trim()).filter(Boolean);

/**
 * The expression for `{from, to, path, tags, filter}`, or null where nothing is asked for.
 */
export function composed({ from = '', to = '', path = '', tags = '', filter = '' }) {
  const parts = [];
  if (from) parts.push(`taken >= ${from}`);
  if (to) parts.push(`taken < ${dayAfter(to)}`);
  if (path.trim()) parts.push(`path like ${containing(path.trim())}`);
  for (const tag of listed(tags)) parts.push(`tags has ${quoted(tag)}`);
  const raw = filter.trim();
  if (raw) parts.push(parts.length ? `(${raw})` : raw);
  return parts.length ? parts.join(' and ') : null;
}
