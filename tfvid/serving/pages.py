"""What the pages that play and compose have in common: the web server's package and the page's files."""

import importlib.resources

from tfvid.errors import UserError

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def import_aiohttp():
    """The web server's package; UserError where it is not installed."""
    try:
        from aiohttp import web
    except ImportError:
        raise UserError("--web: needs aiohttp; install it with: pip install 'tfvid[web]'") from None
    return web


def add_files(app, files, title):
    """Serves files of tfvid/serving/page.

    Args:
      app: a web application.
      files: {path of the request: file name}.
      title: what stands for {{title}} in them.
    """
    web = import_aiohttp()

    async def answer(request):
        name = files[request.path]
        text = importlib.resources.files("tfvid.serving").joinpath("page", name).read_text("utf-8")
        return web.Response(text=text.replace("{{title}}", title), content_type=_TYPES[name.rsplit(".", 1)[1]])

    for path in files:
        app.router.add_get(path, answer)
