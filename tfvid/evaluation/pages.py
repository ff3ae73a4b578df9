"""HTML pages with tables, plots and GIFs that play together; plain files beside each other."""

import html

import tensorflow as tf

# All GIFs of a page have as many frames; they are started together once all are there, and
# again by a click: setting `src` anew restarts an animation.
SCRIPT = """
<script>
const clips = Array.from(document.querySelectorAll('img.clip'));
function restart() {
  const sources = clips.map(c => c.getAttribute('src').split('?')[0]);
  clips.forEach(c => c.removeAttribute('src'));
  requestAnimationFrame(() => clips.forEach((c, i) => { c.src = sources[i] + '?' + Date.now(); }));
}
Promise.all(clips.map(c => c.complete ? 0 : new Promise(r => { c.onload = c.onerror = r; }))).then(restart);
document.getElementById('restart')?.addEventListener('click', restart);
</script>
"""

STYLE = """
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .35rem .7rem; text-align: left; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
img.clip { width: 144px; image-rendering: pixelated; display: block; }
img.plot { max-width: 34rem; width: 100%; }
figure { display: inline-block; margin: .3rem .6rem .6rem 0; vertical-align: top; }
figcaption { font-size: 13px; color: #555; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { color: #555; } dd { margin: 0; }
button { font: inherit; padding: .2rem .8rem; }
.best { font-weight: 600; }
</style>
"""


class Page:
    """Collects the parts of one page."""

    def __init__(self, title):
        self.title, self.parts, self._has_clips = title, [], False

    def text(self, text):
        """A paragraph."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def heading(self, text):
        """A second-level heading."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def facts(self, values):
        """A list of name and value."""
        rows = "".join(f"<dt>{html.escape(str(k))}</dt><dd>{html.escape(str(v))}</dd>" for k, v in values.items())
        self.parts.append(f"<dl>{rows}</dl>")

    def table(self, header, rows, best=()):
        """A table of strings; `best` holds (row, column) of cells in bold."""
        head = "".join(f"<th>{html.escape(c)}</th>" for c in header)
        body = []
        for i, row in enumerate(rows):
            cells = [
                f'<td class="number{" best" if (i, j) in best else ""}">{html.escape(c)}</td>'
                for j, c in enumerate(row)
            ]
            body.append(f"<tr>{''.join(cells)}</tr>")
        self.parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>")

    def plots(self, sources):
        """Images side by side; {caption: relative path}."""
        self.parts.append("".join(_figure(s, c, "plot") for c, s in sources.items()))

    def clips(self, sources):
        """GIFs side by side that play together; {caption: relative path}."""
        if not self._has_clips:
            self.parts.append('<p><button id="restart">play together from the start</button></p>')
            self._has_clips = True
        self.parts.append("<div>" + "".join(_figure(s, c, "clip") for c, s in sources.items()) + "</div>")

    def write(self, path):
        """Writes the page."""
        title = html.escape(self.title)
        text = (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>{STYLE}</head>\n'
            f"<body><h1>{title}</h1>\n" + "\n".join(self.parts) + f"{SCRIPT if self._has_clips else ''}</body></html>\n"
        )
        with tf.io.gfile.GFile(path, "w") as f:
            f.write(text)


def _figure(source, caption, kind):
    source, caption = html.escape(source, quote=True), html.escape(caption)
    return f'<figure><img class="{kind}" src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
