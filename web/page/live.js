// The document, live. A browser connects again by itself when a stream ends, and gives up when it was answered with an
// error: then we try again.

const TRY_AGAIN_AFTER_MS = 5000;

export class Live {
  // onDocument(document, changed names), onConnection(true or false)
  constructor(onDocument, onConnection) {
    this.onDocument = onDocument;
    this.onConnection = onConnection;
    this.document = {};
    this.source = null;
    this.timer = null;
    // A browser has six connections to a host, for all of its tabs: one that nobody looks at needs none.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.leave();
      else if (this.range) this.watch(this.range);
    });
  }

  leave() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  watch(range) {
    this.range = range;
    this.leave();
    const source = new EventSource(`/v1/overview?range=${encodeURIComponent(range)}`);
    this.source = source;
    source.onmessage = (message) => {
      if (this.source !== source) return;
      const news = JSON.parse(message.data);
      this.document = { ...this.document, ...news };
      this.onConnection(true);
      this.onDocument(this.document, Object.keys(news));
    };
    source.onerror = () => {
      if (this.source !== source) return;
      this.onConnection(false);
      if (source.readyState === EventSource.CLOSED) {
        this.timer = setTimeout(() => this.watch(this.range), TRY_AGAIN_AFTER_MS);
      }
    };
  }
}
