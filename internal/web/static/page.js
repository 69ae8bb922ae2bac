'use strict';
// The owner's page. Texts of devices are shown as texts: nodes are made here, and nothing
// is ever parsed as markup.
(() => {
	const keyName = 'portcullis-key';
	const $ = id => document.getElementById(id);

	// el returns a new element with properties, attributes ("aria-label", "data-head") and children.
	function el(name, set, ...children) {
		const node = document.createElement(name);
		for (const [k, v] of Object.entries(set || {})) {
			if (k.includes('-') || k === 'role' || k === 'for') node.setAttribute(k, v); else node[k] = v;
		}
		node.append(...children);
		return node;
	}

	// say sets a text where it is another, so that nothing is read out twice.
	function say(node, text) {
		if (node.textContent !== text) node.textContent = text;
	}

	// list makes the children of a node those of items. A child stays the same node as long as its
	// key is there, and so do focus, selection and what is open.
	function list(parent, items, keyOf, make, fill, heading) {
		const held = document.activeElement;
		const within = parent.contains(held);
		const old = new Map(Array.from(parent.children, c => [c.dataset.key, c]));
		const taken = new Set();
		items.forEach((item, i) => {
			let key = keyOf(item);
			while (taken.has(key)) key += '+'; // what looks the same is not
			taken.add(key);
			let node = old.get(key);
			old.delete(key);
			if (!node) {
				node = make(item);
				node.dataset.key = key;
			}
			fill(node, item);
			if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] || null);
		});
		for (const node of old.values()) node.remove();
		if (!within || document.activeElement === held) return;
		if (held.isConnected) held.focus({preventScroll: true});
		else if (heading) heading.focus({preventScroll: true});
	}

	const plural = (n, one) => n + ' ' + one + (n === 1 ? '' : 's');

	function bytes(n) {
		if (n < 1000) return n + ' B';
		for (const unit of ['kB', 'MB', 'GB', 'TB']) {
			n /= 1000;
			if (n < 1000 || unit === 'TB') return n.toFixed(n < 10 ? 1 : 0) + ' ' + unit;
		}
	}

	function span(seconds) {
		const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
		for (let i = 0; i < units.length; i++) {
			const [size, name] = units[i];
			if (seconds < size && size > 1) continue;
			const n = Math.floor(seconds / size);
			const rest = i < 2 ? Math.floor(seconds % size / units[i + 1][0]) : 0;
			return n + ' ' + name + (rest ? ' ' + rest + ' ' + units[i + 1][1] : '');
		}
	}

	function clock(time) {
		const t = new Date(time);
		if (isNaN(t)) return time;
		const today = t.toDateString() === new Date().toDateString();
		return today ? t.toLocaleTimeString() : t.toLocaleString();
	}

	function stamp(node, time) {
		node.dateTime = time;
		say(node, clock(time));
	}

	const endpoint = (ip, port) => (ip.includes(':') ? '[' + ip + ']' : ip) + ':' + port;
	const outside = port => port === 0 ? 'any port' : String(port);

	// Talking to the page's own process.

	let key = localStorage.getItem(keyName) || '';

	// What a device writes must not turn the letters beside it around, or hide some.
	const shown = (_, v) => typeof v === 'string' ? v.replace(/(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd') : v;

	async function ask(path, body) {
		const options = {headers: {'X-Portcullis-Key': key}, credentials: 'same-origin', cache: 'no-store', signal: AbortSignal.timeout(45000)};
		if (body) {
			options.method = 'POST';
			options.headers['Content-Type'] = 'application/json';
			options.body = JSON.stringify(body);
		}
		const answer = await fetch(path, options);
		const said = JSON.parse(await answer.text(), shown);
		if (answer.ok) return said;
		const error = new Error(said.error);
		error.reason = said.reason;
		throw error;
	}

	// act asks for a change, tells what came of it, and looks again.
	// The button keeps its focus meanwhile, which one that is disabled would lose.
	async function act(button, path, body, done) {
		if (button.ariaDisabled) return;
		button.ariaDisabled = 'true';
		try {
			await ask(path, body);
			news(done);
		} catch (error) {
			if (error.reason === 'signed-out') return signedOut();
			news('That did not work: ' + error.message);
		} finally {
			button.ariaDisabled = null;
		}
		look();
	}

	const sentence = text => text.charAt(0).toUpperCase() + text.slice(1);
	const news = text => say($('news'), text);

	// sure asks before something is done: the first press names it, the second does it.
	function sure(button, question, then) {
		const name = button.textContent;
		const label = button.getAttribute('aria-label');
		let timer = 0;
		const calm = () => {
			clearTimeout(timer);
			timer = 0;
			button.textContent = name;
			button.setAttribute('aria-label', label);
			button.classList.remove('yes');
		};
		button.addEventListener('blur', () => { if (timer) calm(); });
		button.addEventListener('click', () => {
			if (timer) {
				calm();
				return then();
			}
			button.textContent = question;
			button.setAttribute('aria-label', question + ' ' + label);
			timer = setTimeout(calm, 6000);
		});
	}

	// Signing in and out.

	function signedOut(why) {
		key = '';
		localStorage.removeItem(keyName);
		halt();
		$('content').hidden = $('signout').hidden = true;
		$('signin').hidden = false;
		$('facts').replaceChildren();
		if (why) {
			news(why);
		}
		$('word').focus();
	}

	async function signIn(word) {
		try {
			key = (await ask('/v1/signin', {word})).key;
		} catch (error) {
			return signedOut(sentence(error.message));
		}
		localStorage.setItem(keyName, key);
		news('');
		$('word').value = '';
		$('signin').hidden = true;
		look();
	}

	// Looking.

	let timer = 0, looking = false, failed = 0;

	const halt = () => { clearTimeout(timer); timer = 0; };

	async function look() {
		if (looking || !key || document.hidden) return;
		looking = true;
		halt();
		let wait = 2000;
		try {
			const state = await ask('/v1/state');
			failed = 0;
			wait = state.wait;
			show(state);
		} catch (error) {
			if (error.reason === 'signed-out') {
				looking = false;
				return signedOut('You are signed out.');
			}
			wait = Math.min(30000, 2000 * 2 ** failed++);
			trouble('This page has lost its gateway: portcullis web does not answer. It tries again by itself.');
		}
		looking = false;
		halt();
		if (!document.hidden) timer = setTimeout(look, wait);
	}

	document.addEventListener('visibilitychange', () => document.hidden ? halt() : look());

	function trouble(text) {
		$('banner').hidden = !text;
		say($('banner'), text);
		$('content').classList.toggle('away', !!text);
	}

	function show(state) {
		$('signin').hidden = true;
		$('content').hidden = $('signout').hidden = false;
		trouble(state.error && 'The daemon does not answer: ' + state.error);
		showEvents(state.events || []);
		if (state.error) return;
		showFacts(state.status);
		showPending(state.pending);
		showDevices(state.mappings || [], state.left_out);
		showRefused(state.refused || [], state.status.configuration);
		showApprovals(state.approvals);
	}

	function showFacts(s) {
		const wan = !s.wan.interface ? 'none yet' : !s.wan.up ? s.wan.interface + ' is down' :
			s.wan.private ? s.wan.external_ip + ', not reachable from the Internet' : s.wan.external_ip;
		const facts = [
			['Internet', wan],
			['Open', (s.mappings + s.pinholes) + ' of ' + s.mappings_limit],
			['Refused', String(s.denied)],
			['Up', span(s.uptime)],
		];
		list($('facts'), facts, f => f[0], f => el('div', null, el('dt', {textContent: f[0]}), el('dd')), (n, f) => say(n.lastChild, f[1]));
		say($('version'), 'Portcullis ' + s.version + ', ' + s.firewall.backend);
	}

	// Open ports, by device.

	const called = (host, ip) => host || ip;

	function byDevice(mappings) {
		const devices = new Map();
		for (const m of mappings) {
			const key = m.client_mac || m.internal_ip;
			if (!devices.has(key)) devices.set(key, {key, mappings: [], ips: new Set(), host: '', bytes: 0});
			const d = devices.get(key);
			d.mappings.push(m);
			d.ips.add(m.internal_ip);
			d.host = d.host || m.client_host;
			d.bytes += m.bytes;
			d.mac = m.client_mac;
		}
		const all = Array.from(devices.values());
		for (const d of all) d.name = called(d.host, d.mappings[0].internal_ip);
		return all.sort((a, b) => a.name.localeCompare(b.name) || (a.key < b.key ? -1 : 1));
	}

	const heads = ['Port', 'To', 'What', 'Until', 'Traffic'];

	function showDevices(mappings, leftOut) {
		$('open-none').hidden = mappings.length > 0;
		$('left-out').hidden = !leftOut;
		say($('left-out'), 'and ' + plural(leftOut, 'other') + '; portcullis list shows all');
		list($('devices'), byDevice(mappings), d => d.key, makeDevice, fillDevice, $('open-title'));
	}

	function makeDevice() {
		const head = el('tr', null, ...heads.map(h => el('th', {scope: 'col', textContent: h, role: 'columnheader'})), el('th', {scope: 'col', role: 'columnheader', 'aria-label': 'Close'}));
		head.setAttribute('role', 'row');
		// A narrow screen shows a row as a block, and would lose what it is without the roles.
		return el('article', {className: 'device'},
			el('div', {className: 'head'}, el('h3'), el('span', {className: 'quiet'}), el('span', {className: 'number quiet'})),
			el('table', {role: 'table'}, el('caption'), el('thead', {role: 'rowgroup'}, head), el('tbody', {role: 'rowgroup'})));
	}

	function fillDevice(node, d) {
		const [name, where, sum] = node.firstChild.children;
		say(name, d.name);
		say(where, Array.from(d.ips).concat(d.mac || []).filter(x => x !== d.name).join(', '));
		say(sum, bytes(d.bytes));
		say(node.querySelector('caption'), 'Open ports of ' + d.name);
		list(node.querySelector('tbody'), d.mappings, m => String(m.id), makeRow, fillRow, $('open-title'));
	}

	const outer = m => m.external_port + '/' + m.protocol;

	function makeRow(m) {
		const close = el('button', {type: 'button', className: 'stop', textContent: 'Close', 'aria-label': 'Close ' + outer(m) + ' of ' + called(m.client_host, m.internal_ip)});
		sure(close, 'Really close?', () => act(close, '/v1/close', {id: m.id}, 'Closed ' + outer(m) + ' of ' + called(m.client_host, m.internal_ip) + '.'));
		const row = el('tr', {role: 'row'}, ...heads.map(h => el('td', {role: 'cell', 'data-head': h})), el('td', {role: 'cell'}, close));
		for (const i of [0, 4]) row.children[i].className = 'number';
		return row;
	}

	function fillRow(row, m) {
		const [port, to, what, until, traffic] = row.children;
		say(port, outer(m));
		say(to, m.family === 6 ? m.internal_ip : endpoint(m.internal_ip, m.internal_port));
		const by = (m.via === 'owner' ? 'you' : m.via) + (m.rule ? ', rule ' + m.rule : '') + (m.remote ? ', from ' + m.remote : '');
		say(what, (m.description ? m.description + ' ' : '') + '(' + by + ')');
		say(until, !m.enabled ? 'switched off' : m.suspended ? 'closed: another device has its address' :
			m.endless ? 'as long as it is here' : m.expires_in === 0 ? 'for good' : span(m.expires_in));
		say(traffic, m.uncounted ? '' : m.packets === 0 ? 'none' : bytes(m.bytes) + ', ' + plural(m.packets, 'packet'));
	}

	// What was refused.

	const wish = r => r.protocol + ' port ' + r.internal_port + (r.family === 4 && r.external_port !== r.internal_port ? ', from outside ' + outside(r.external_port) : '');

	function showRefused(devices, configuration) {
		// What waits for an answer stands above.
		devices = devices.map(d => ({...d, refused: d.refused.filter(r => r.action !== 'ask' && !r.allowed_by)})).filter(d => d.refused.length || d.left_out);
		$('refused-none').hidden = devices.length > 0;
		const where = (configuration.file || '/etc/portcullis/portcullis.toml');
		list($('refused-list'), devices, d => d.client.mac || d.client.address, makeRefused, (node, d) => fillRefused(node, d, where), $('refused-title'));
	}

	function makeRefused() {
		return el('li', null, el('div', {className: 'head'}, el('h3'), el('span', {className: 'quiet'})), el('div'), el('p', {className: 'quiet'}));
	}

	function fillRefused(node, d, where) {
		const [head, wishes, rest] = node.children;
		const c = d.client, name = called(c.host, c.address);
		say(head.firstChild, name);
		say(head.lastChild, [c.address, c.mac, c.interface].filter(x => x && x !== name).join(', '));
		list(wishes, d.refused, r => [r.protocol, r.external_port, r.internal_ip, r.internal_port, r.via, r.remote, r.reason, r.add].join(' '), makeWish, (n, r) => fillWish(n, r, where), $('refused-title'));
		rest.hidden = !d.left_out;
		say(rest, 'and ' + plural(d.left_out, 'other request') + ' before');
	}

	function makeWish(r) {
		const node = el('div', {className: 'wish'}, el('p', null, el('time'), el('strong')), el('p'));
		node.firstChild.firstChild.after(' ');
		if (!r.add) return node;
		const rule = el('pre', {tabIndex: 0, role: 'region', 'aria-label': 'Rule for ' + wish(r)}, el('code', {textContent: r.add}));
		const copy = el('button', {type: 'button', textContent: 'Copy', 'aria-label': 'Copy the rule for ' + wish(r)});
		copy.addEventListener('click', () => take(rule));
		node.append(el('details', null, el('summary', {textContent: 'The rule that would allow it'}), el('p', {className: 'quiet'}), rule, copy));
		return node;
	}

	// take copies a text, or selects it where the browser lets no page copy.
	async function take(node) {
		try {
			await navigator.clipboard.writeText(node.textContent);
			news('Copied.');
		} catch {
			getSelection().selectAllChildren(node);
			news('The rule is selected: copy it with your browser.');
		}
	}

	function fillWish(node, r, where) {
		const [head, why] = node.children;
		stamp(head.firstChild, r.time);
		say(head.lastChild, wish(r) + ' by ' + r.via + (r.description ? ': ' + r.description : ''));
		say(why, sentence(r.add ? r.why.split('; ')[0] : r.why) + (r.wall ? ' (no rule can allow it)' : '') + (r.count > 1 ? ', ' + plural(r.count, 'time') : ''));
		if (r.add) say(node.querySelector('details p'), 'Add it to ' + where + (r.above ? ' above the rule ' + JSON.stringify(r.above) : '') + ', and run portcullis reload.');
	}

	// What waits for a decision, and what was decided.

	const times = [['', 'for good'], ['2h', 'for 2 hours'], ['24h', 'for a day'], ['7d', 'for a week'], ['once', 'once']];
	let waiting = new Set();

	function showPending(pending) {
		pending = pending || [];
		$('pending').hidden = pending.length === 0;
		document.title = (pending.length ? '(' + pending.length + ') ' : '') + 'Portcullis';
		list($('pending-list'), pending, p => String(p.id), makePending, fillPending, $('open-title'));
		const come = pending.find(p => !waiting.has(p.id));
		waiting = new Set(pending.map(p => p.id));
		if (come) news(called(come.client_host, come.internal_ip) + ' asks for ' + wish(come) + '.');
	}

	function makePending(p) {
		const what = wish(p) + ' of ' + called(p.client_host, p.internal_ip);
		const time = el('select', {'aria-label': 'How long to approve ' + what}, ...times.map(([value, textContent]) => el('option', {value, textContent})));
		const every = el('input', {type: 'checkbox'});
		time.addEventListener('change', () => {
			every.disabled = time.value === 'once'; // one mapping is no device
			every.checked &&= !every.disabled;
		});
		const answer = (name, className, path, done) => {
			const button = el('button', {type: 'button', className, textContent: name, 'aria-label': name + ' ' + what});
			button.addEventListener('click', () => act(button, path, path === '/v1/deny' ? {id: p.id, device: every.checked} : {id: p.id, for: time.value, device: every.checked}, done));
			return button;
		};
		return el('li', null, el('div', {className: 'head'}, el('h3'), el('span', {className: 'quiet'})), el('p', null, el('strong'), ' ', el('span')), el('p', {className: 'quiet'}, el('time'), el('span')),
			el('div', {className: 'choices'}, time, el('label', null, every, 'every port of this device'),
				answer('Approve', 'yes', '/v1/approve', 'Approved ' + what + '. It opens when the device asks again.'),
				answer('Deny', 'stop', '/v1/deny', 'Denied ' + what + '.')));
	}

	function fillPending(node, p) {
		const [head, what, when] = node.children;
		const name = called(p.client_host, p.internal_ip);
		say(head.firstChild, name);
		say(head.lastChild, [p.vendor, p.internal_ip, p.client_mac, p.interface].filter(x => x && x !== name).join(', '));
		say(what.firstChild, wish(p));
		say(what.lastChild, [p.service, p.description && '“' + p.description + '”'].filter(x => x).join(', '));
		stamp(when.firstChild, p.last);
		say(when.lastChild, ' by ' + p.via + (p.rule ? ', rule ' + p.rule : '') + (p.count > 1 ? ', ' + plural(p.count, 'time') : ''));
	}

	const about = a => called(a.client_host, a.client_ip || a.client_mac) + ': ' + (a.internal_port ? a.protocol + ' port ' + a.internal_port : 'every port');

	function showApprovals(approvals) {
		$('approvals').hidden = !approvals;
		approvals = approvals || [];
		$('approvals-none').hidden = approvals.length > 0;
		list($('approvals-list'), approvals, a => a.id + a.decision + a.created, makeApproval, fillApproval, $('approvals-title'));
	}

	function makeApproval(a) {
		const revoke = el('button', {type: 'button', textContent: 'Take back', 'aria-label': 'Take back: ' + about(a) + ' ' + a.decision});
		sure(revoke, 'Really?', () => act(revoke, '/v1/revoke', {id: a.id}, 'Taken back: ' + about(a) + '. What was open by it is closed.'));
		return el('li', null, el('time'), el('span'), revoke);
	}

	function fillApproval(node, a) {
		stamp(node.firstChild, a.created);
		say(node.children[1], about(a) + (a.decision === 'deny' ? ' denied' : ' approved') +
			(a.once ? (a.used ? ', once, which is used' : ', once') : a.until ? ', until ' + clock(a.until) : '') + (a.description ? ' (' + a.description + ')' : ''));
	}

	// The timeline.

	const verbs = {granted: 'opened', deleted: 'closed by its device', expired: 'ended', denied: 'refused', revoked: 'closed', pending: 'asked', suspended: 'suspended', resumed: 'opened again', drift: 'rules repaired', resync: 'some events are missing here'};

	function showEvents(events) {
		$('events-none').hidden = events.length > 0;
		list($('events'), events, e => e.time + e.event + (e.approval ? e.approval.id : '') + (e.mapping ? e.mapping.id + outer(e.mapping) : ''), () => el('li', null, el('time'), el('span')), (node, e) => {
			stamp(node.firstChild, e.time);
			say(node.lastChild, eventLine(e));
		}, $('events-title'));
	}

	function eventLine(e) {
		const m = e.mapping, verb = verbs[e.event] || e.event;
		if (e.approval) return about(e.approval) + (e.event === 'revoked' ? ': your answer was taken back' : e.event === 'denied' ? ' was denied by you' : ' was approved by you');
		if (!m) return verb + (e.why ? ': ' + e.why : '');
		const port = e.event === 'denied' || e.event === 'pending' ? m.internal_port + '/' + m.protocol : outer(m);
		return [called(e.client && e.client.host, m.internal_ip) + ': ' + port + ' ' + verb,
			m.description && '(' + m.description + ')', e.event !== 'pending' && e.why && e.why.split('; ')[0]].filter(x => x).join(' ');
	}

	// Beginning.

	$('signin-form').addEventListener('submit', event => {
		event.preventDefault();
		signIn($('word').value.trim().replace(/^.*#/, ''));
	});
	$('signout').addEventListener('click', async () => {
		try {
			await ask('/v1/signout', {});
		} catch { /* then it ends by itself */ }
		signedOut('You are signed out.');
	});
		addEventListener('hashchange', begin);

	function begin() {
		const word = location.hash.slice(1);
		if (word && word !== 'main') {
			history.replaceState(null, '', '/'); // it is good once, and nobody's to keep
			signIn(word);
		} else if (key) {
			look();
		} else {
			signedOut();
		}
	}
	begin();
})();
