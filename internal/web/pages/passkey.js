// Passkeys (WebAuthn): the one script of these pages. It finds the form that has
// data-passkeys, shows it where the browser can do it, and sends it with what the browser
// made. On the login, passkeys are offered by autofill, too.
"use strict";

(() => {
	const form = document.querySelector("form[data-passkeys]");
	// The host may be another than the public URL's, such as an address: there the browser
	// would refuse.
	if (!form || !window.PublicKeyCredential || location.hostname !== form.dataset.passkeys) return;

	const adds = form.elements.form !== undefined; // else it is the login's
	const alert = form.querySelector("[role=alert][hidden]");
	const challengeLife = 4 * 60 * 1000; // a minute less than the server's
	// After a refusal autofill would offer the same passkey again, or even send it by itself.
	const refused = location.pathname.endsWith("/login/passkey");
	let busy = false;
	let waiting = null; // what ends the request that waits for autofill
	let ended = Promise.resolve(); // when it has

	const say = (text) => {
		alert.textContent = text;
		alert.hidden = text === "";
	};

	const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));

	const base64url = (buffer) =>
		btoa(Array.from(new Uint8Array(buffer), (b) => String.fromCharCode(b)).join("")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");

	// options are those of a new challenge.
	const options = async (signal) => {
		const request = adds ? { method: "POST", body: new URLSearchParams({ form: form.elements.form.value }) } : {};
		const answer = await fetch(form.dataset.options, { ...request, signal, cache: "no-store" });
		if (answer.redirected) { // the page is too old: it is shown anew, after a proof
			location.reload();
			return new Promise(() => {});
		}
		if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
		const { publicKey } = await answer.json();
		publicKey.challenge = bytes(publicKey.challenge);
		if (publicKey.user) publicKey.user.id = bytes(publicKey.user.id);
		for (const known of publicKey.excludeCredentials || []) known.id = bytes(known.id);
		return publicKey;
	};

	const send = (credential) => {
		const response = {};
		for (const name of ["clientDataJSON", "authenticatorData", "signature", "userHandle", "attestationObject"]) {
			if (credential.response[name]) response[name] = base64url(credential.response[name]);
		}
		if (credential.response.getTransports) response.transports = credential.response.getTransports();
		const { credProps } = credential.getClientExtensionResults();
		form.elements.passkey.value = JSON.stringify({
			id: credential.id, rawId: base64url(credential.rawId), type: credential.type, response, clientExtensionResults: { credProps },
		});
		const stay = document.getElementById("stay");
		if (!adds && stay && stay.checked) form.elements.stay.disabled = false;
		form.submit();
	};

	// stop ends the request that waits for autofill. A browser has one at a time.
	const stop = () => {
		if (waiting) waiting.abort();
		waiting = null;
		return ended;
	};

	// autofill waits for a passkey to be chosen in the address's field, and begins anew
	// before the challenge is too old.
	const autofill = () => {
		if (adds || refused || busy) return;
		const before = stop();
		const mine = new AbortController();
		waiting = mine;
		ended = (async () => {
			await before;
			try {
				if (!(await PublicKeyCredential.isConditionalMediationAvailable?.())) return;
				const publicKey = await options(mine.signal);
				const credential = await navigator.credentials.get({ publicKey, mediation: "conditional", signal: mine.signal });
				if (mine.signal.aborted || !credential) return;
				busy = true;
				send(credential);
			} catch {
				// It was ended, or the server is away: the button is there.
				if (waiting === mine) busy = false;
			}
		})();
	};

	form.addEventListener("submit", async (event) => {
		event.preventDefault();
		if (busy) return;
		busy = true;
		say("");
		try {
			await stop();
			const publicKey = await options();
			send(await (adds ? navigator.credentials.create({ publicKey }) : navigator.credentials.get({ publicKey })));
		} catch (error) {
			const { cancelled, failed, there } = form.dataset;
			say({ NotAllowedError: cancelled, AbortError: cancelled, InvalidStateError: there }[error.name] || failed);
			busy = false;
			autofill();
		}
	});

	form.hidden = false;
	for (const text of document.querySelectorAll("[data-without-passkeys]")) text.hidden = true;
	autofill();
	setInterval(() => document.hidden || autofill(), challengeLife);
	document.addEventListener("visibilitychange", () => document.hidden || autofill());
	window.addEventListener("pageshow", (event) => {
		if (!event.persisted) return;
		busy = false;
		autofill();
	});
})();
