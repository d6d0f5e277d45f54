// Talks to the server. A token goes into a header, never into a URL.
import { fileName } from "/ui/format.js";

export class Problem extends Error {}

export async function lookUp(digest, token) {
  const answer = await reach(`/download/${digest}`, { method: "HEAD", headers: bearer(token) });
  if (!answer.ok) {
    // a HEAD has no body to say why; a range of one byte costs little and has
    const why = await reach(`/download/${digest}`, { headers: { ...bearer(token), Range: "bytes=0-0" } });
    const told = await why.json().catch(() => ({}));
    throw new Problem(explain(answer.status, told.message));
  }
  return {
    digest,
    name: fileName(answer.headers.get("Content-Disposition")),
    size: Number(answer.headers.get("Content-Length")),
  };
}

export function upload(file, token, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/upload?filename=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onload = () => {
      if (request.status < 300) resolve({ ...request.response, isNew: request.status === 201 });
      else reject(new Problem(explain(request.status, request.response?.message)));
    };
    request.onerror = () => reject(new Problem("The upload broke off. Nothing was stored; try again."));
    request.send(file);
  });
}

export async function hashFile(file, onProgress) {
  return (await work({ file }, onProgress)).digest;
}

export async function download(artifact, token, onProgress) {
  const result = await work({ digest: artifact.digest, token }, onProgress);
  if (result.broken) {
    throw new Problem(
      "The server broke the download off, and nothing was saved. It does so when what is stored no longer matches its digest.",
    );
  }
  if (result.status) throw new Problem(explain(result.status, result.problem.message));
  if (result.digest !== artifact.digest) {
    throw new Problem(`What arrived is not what was asked for, and was not saved. Its digest is ${result.digest}.`);
  }
  return result.blob;
}

export async function activity() {
  const answer = await fetch("/ui/activity.json", { cache: "no-store" });
  return answer.json();
}

function work(task, onProgress) {
  const worker = new Worker("/ui/hash-worker.js", { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if ("progress" in data) onProgress(data.progress);
      else if ("result" in data) resolve(data.result);
      else reject(new Problem(unreachable));
    };
    worker.onerror = () => reject(new Problem("This browser could not start the worker that hashes."));
    worker.postMessage(task);
  }).finally(() => worker.terminate());
}

const unreachable = "The server cannot be reached.";

async function reach(url, options) {
  try {
    return await fetch(url, { cache: "no-store", ...options });
  } catch {
    throw new Problem(unreachable);
  }
}

function bearer(token) {
  return { Authorization: `Bearer ${token}` };
}

function explain(status, message = "") {
  const said = message ? ` The server says: ${message}.` : "";
  switch (status) {
    case 401: return `The token does not entitle to this.${said}`;
    case 404: return "Nothing is stored under this digest.";
    case 413: return `The file is larger than the token allows.${said}`;
    case 502: return `The store cannot be used as it is set up now.${said}`;
    case 503: return `The store does not answer. Try again in a moment.${said}`;
    case 507: return `There is no room for the file.${said}`;
    default: return `It did not work (HTTP ${status}).${said}`;
  }
}
