"""What mkdocs calls while it builds: the made pages are added, and what was built is searched for outside loads."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from docs.writers.made_pages import made_pages
from docs.writers.outside import outside_loads


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files with the made pages beside the written ones."""
    for page, content in made_pages().items():
        files.append(File.generated(config, page, content=content))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Raises: PluginError if a page loads anything from outside."""
    if loads := outside_loads(Path(config.site_dir)):
        raise PluginError("Nothing may be loaded from outside:\n" + "\n".join(loads))
