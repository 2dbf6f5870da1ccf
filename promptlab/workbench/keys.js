// The page Keys & spend: forms in dialogs, their answers drawn anew by the server.
const made = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const act = (name, value) => lab.act(() => trigger('act', { act: name, value: JSON.stringify(value ?? {}) }));
const DURATIONS = [['', 'for ever'], ['1h', 'an hour'], ['1d', 'a day'], ['1w', 'a week'], ['30d', '30 days'], ['1mo', 'a month']];
const EXPIRES = [['', 'never'], ['86400', 'in a day'], ['604800', 'in a week'], ['2592000', 'in 30 days'], ['31536000', 'in a year']];
const GRACE = [['0', 'at once'], ['3600', 'in an hour'], ['86400', 'in a day'], ['604800', 'in a week']];
const AMOUNTS = [
  ['routes', 'Routes', 'all; or some: chat, eu-*'],
  ['rpm', 'Requests a minute', 'no limit'], ['tpm', 'Tokens a minute', 'no limit'],
  ['concurrency', 'Calls at once', 'no limit'], ['max_budget', 'Budget, USD', 'none'],
  ['budget_duration', 'Spent within', DURATIONS],
];
const FORMS = {
  create: { title: 'New key', go: 'Make the key', fields: [['name', 'Name', 'whose key it is'], ...AMOUNTS, ['expires_in', 'Expires', EXPIRES]] },
  limits: { title: 'Limits of', go: 'Change them', fields: AMOUNTS },
  rotate: {
    title: 'A new secret for', go: 'Rotate', fields: [['grace', 'The present secret ends', GRACE]],
    text: 'Limits and what was spent stay. The new secret is shown once.',
  },
  revoke: {
    title: 'Revoke', go: 'Revoke for good', bad: true, fields: [['typed', 'Type its name', '']],
    text: 'Calls with it are refused within a second, and nothing brings it back.',
  },
};
let last = null;

function open(kind, key, values, problem) {
  const form = FORMS[kind];
  const begin = values ?? { ...key, routes: key?.routes?.join(', ') };
  const inputs = form.fields.map(([name, label, hint]) => {
    const node = Array.isArray(hint)
      ? made('select', { name }, ...hint.map(([value, text]) => made('option', { value, textContent: text })))
      : made('input', { type: 'text', name, placeholder: hint, autocomplete: 'off', spellcheck: false });
    const now = kind === 'create' && !values ? '' : begin[name];
    if (now !== undefined && now !== null) {
      if (Array.isArray(hint) && !hint.some(([value]) => value === String(now))) node.append(made('option', { value: now, textContent: now }));
      node.value = now;
    }
    return made('label', {}, made('span', { textContent: label }), node);
  });
  const said = made('div', { className: 'problem', role: 'alert', hidden: !problem, textContent: problem ?? '' });
  const go = made('button', { type: 'submit', className: 'btn primary' + (form.bad ? ' danger' : ''), textContent: form.go });
  const read = () => Object.fromEntries(new FormData(body));
  const copy = made('button', { type: 'button', className: 'btn', textContent: 'Copy as…', onclick: () => act('copy', { kind, id: key?.id, ...read() }) });
  const shut = made('button', { type: 'button', className: 'btn', textContent: 'Cancel', onclick: () => box.close() });
  const body = made('form', { method: 'dialog' }, ...(form.text ? [made('p', { className: 'note', textContent: form.text })] : []),
    made('div', { className: 'fields' + (inputs.length > 2 ? ' two' : '') }, ...inputs), said, made('footer', {}, copy, made('i'), shut, go));
  const box = made('dialog', { className: 'sheet yard keyform' }, made('header', {}, made('h2', { textContent: key ? `${form.title} ${key.name}` : form.title })), body);
  body.addEventListener('submit', () => { last = { kind, key, values: read() }; act(kind, { id: key?.id, ...last.values }); });
  if (kind === 'revoke') {
    const typed = body.elements.typed, check = () => { go.disabled = typed.value !== key.name; };
    typed.addEventListener('input', check);
    check();
  }
  box.addEventListener('close', () => box.remove());
  document.body.append(box);
  box.showModal();
}

element.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-open], [data-act], [data-copy]');
  if (!button) return;
  const row = button.closest('[data-key]');
  const key = row ? JSON.parse(row.dataset.key) : null;
  const kind = button.dataset.open;
  if (button.dataset.copy) button.textContent = (await lab.copy(button.dataset.copy)) ? 'Copied' : 'Select it and copy';
  else if (kind in FORMS) open(kind, key);
  else if (kind) { last = null; act(kind, { id: key.id }); }
  else act(button.dataset.act, button.dataset.value ?? '');
});
element.addEventListener('change', (event) => { if (event.target.dataset.pick) act(event.target.dataset.pick, event.target.value); });
// What was refused is opened again as it was, with the reason in it.
watch('value', () => {
  const failed = element.querySelector('[data-failed]');
  if (failed && last) open(last.kind, last.key, last.values, failed.dataset.failed);
  last = null;
});
