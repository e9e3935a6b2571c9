"""The built site in a browser: pages, links, pictures, search, and the explorer.

Run by `python -m pytest -n 0 docs/test_site.py` with `pip install '.[docs]'` and Chromium (Debian: `apt-get install
chromium`). SITE names a site that is built already; SCREENSHOTS a folder for pictures of all pages, at two widths, and
dark.
"""

import functools
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse

import pytest
from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
both_widths = pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    if "SITE" in os.environ:
        return pathlib.Path(os.environ["SITE"]).resolve()
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="session")
def address(site):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "The site's tests need Chromium: apt-get install chromium."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens a page at a width; behind the test, nothing may stand in the console, or have been asked of other hosts."""
    contexts, complaints = [], []

    def open_page(name, viewport=DESKTOP, scheme="light", at=address):
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: _complain(complaints, page, message))
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on("request", lambda request: _require_local(complaints, page, request.url, at))
        page.goto(f"{at}/{name}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _complain(complaints, page, message):
    if message.type in ("error", "warning"):
        complaints.append(f"{page.url}: {message.text} {message.location.get('url')}")


def _require_local(complaints, page, url, at):
    if not url.startswith((at, "data:", "blob:", "about:")):
        complaints.append(f"{page.url} asks for {url}")


def pages(site):
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts)


def test_the_site_has_a_page_for_each_of_its_sources(site):
    sources = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert {path.as_posix() for path in sources} <= set(pages(site))


def test_links_lead_to_pages_and_places_that_there_are(site, opened):
    links, places = {}, {}
    page = opened("index.html")
    root = page.url.removesuffix("index.html")
    for name in pages(site):
        page.goto(root + name)
        places[name] = set(page.eval_on_selector_all("[id], a[name]", "all => all.flatMap(one => [one.id, one.name])"))
        links[name] = page.eval_on_selector_all("a[href]", "all => all.map(one => one.href)")
    assert len(places) > 5
    assert sum(map(len, links.values())) > 100
    broken = [
        f"{name} -> {link}" for name in links for link in links[name] if not leads_somewhere(link, root, site, places)
    ]
    assert broken == []


def leads_somewhere(link, root, site, places):
    parts = urllib.parse.urlsplit(link)
    if not link.startswith(root):
        return parts.scheme == "mailto" or (parts.scheme in ("http", "https") and "." in parts.netloc)
    name = urllib.parse.unquote(parts.path.lstrip("/")) or "index.html"
    fragment = urllib.parse.unquote(parts.fragment)
    return (site / name).is_file() and (not fragment or fragment in places.get(name, ()))


@both_widths
def test_pages_show_all_their_pictures_with_a_text_and_fit_the_width(viewport, site, opened):
    page = opened("index.html", viewport)
    root = page.url.removesuffix("index.html")
    wrong = []
    for name in pages(site):
        page.goto(root + name)
        # What is shown on request, too; and without waiting until each is scrolled to.
        page.evaluate("for (const one of document.images) one.loading = 'eager'")
        page.wait_for_function("[...document.images].every(one => one.complete)")
        wrong += [
            f"{name}: {source}"
            for source in page.eval_on_selector_all(
                "img", "all => all.filter(one => !one.naturalWidth || !one.alt.trim()).map(one => one.outerHTML)"
            )
        ]
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > viewport["width"]:
            wrong.append(f"{name} is {width} pixels wide")
        screenshot(page, name, viewport)
    assert wrong == []


def test_pages_look_right_where_it_is_dark(site, opened):
    page = opened("index.html", scheme="dark")
    root = page.url.removesuffix("index.html")
    for name in pages(site):
        page.goto(root + name)
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        screenshot(page, name, DESKTOP, "-dark")


def screenshot(page, name, viewport, kind=""):
    if folder := os.environ.get("SCREENSHOTS"):
        path = pathlib.Path(folder) / f"{name.removesuffix('.html').replace('/', '-')}-{viewport['width']}{kind}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path, full_page=True)


@both_widths
def test_search_finds_a_word_and_opens_what_it_found(viewport, opened):
    page = opened("index.html", viewport)
    page.goto(page.url.replace("index.html", "search.html?q=patch"))
    page.wait_for_selector("#search-results li a")
    results = page.locator("#search-results li a")
    assert "Gallery" in results.all_inner_texts()
    results.first.click()
    page.wait_for_load_state()
    assert "search.html" not in page.url
    assert "patch" in page.inner_text("main").lower()


def test_search_is_opened_by_keyboard(opened):
    page = opened("index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("patch")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=patch*")
    page.wait_for_selector("#search-results li a")


def test_a_checkbox_outlines_all_pictures_of_a_section(opened):
    page = opened("gallery.html")
    section = page.locator("section#patches-and-dropout")
    count = section.locator("img.gallery-plain").count()
    assert count > 20
    assert section.locator("img.gallery-plain:visible").count() == count
    assert section.locator("img.gallery-outlined:visible").count() == 0
    section.get_by_label("Outline what is covered").focus()
    page.keyboard.press("Space")
    assert section.locator("img.gallery-plain:visible").count() == 0
    assert section.locator("img.gallery-outlined:visible").count() == count
    assert page.locator("section#flips-and-crops img.gallery-outlined:visible").count() == 0


def test_every_effect_and_preset_is_shown():
    import shown

    assert shown.missing() == []
    assert len({entry.slug for entry in shown.ENTRIES}) == len(shown.ENTRIES)


@both_widths
def test_sliders_are_moved_by_keyboard_and_change_picture_code_and_yaml(viewport, opened):
    import rendering
    import shown

    page = opened("explorer.html", viewport)
    for entry in shown.ENTRIES:
        page.get_by_label("Effect", exact=True).select_option(label=entry.title)
        assert page.locator(".explorer-slider:visible").count() == len(entry.sliders)
        seen = [on_screen(page)]
        for slider in entry.sliders:
            page.get_by_role("slider", name=slider.setting, exact=True).focus()
            page.keyboard.press("Home")
            seen = [on_screen(page)]
            for _ in slider.values[1:]:
                page.keyboard.press("ArrowRight")
                seen.append(on_screen(page))
            assert len({each["picture"] for each in seen}) == len(slider.values)
            texts = 1 if slider.setting == shown.RECORD else len(slider.values)
            assert len({each["python"] for each in seen}) == texts
            assert len({each["yaml"] for each in seen}) == texts
        expected = rendering.states(entry)[-1]
        assert seen[-1]["picture"].endswith(f"/{expected.file}")
        assert seen[-1]["alt"] == expected.alt


def on_screen(page):
    page.wait_for_function("document.getElementById('explorer-picture').complete")
    assert page.evaluate("document.getElementById('explorer-picture').naturalWidth")
    return {
        "picture": page.locator("#explorer-picture").get_attribute("src"),
        "alt": page.locator("#explorer-picture").get_attribute("alt"),
        "python": page.inner_text("#explorer-python"),
        "yaml": page.inner_text("#explorer-yaml"),
        "load": page.inner_text("#explorer-load"),
    }


def test_code_and_yaml_make_equal_chains_whose_picture_is_the_one_shown(site, opened, tmp_path, monkeypatch):
    import rendering
    import shown
    from PIL import Image, ImageChops, ImageStat

    import grain_datarax as gdx

    monkeypatch.chdir(tmp_path)
    page = opened("explorer.html")
    for entry in shown.ENTRIES:
        page.get_by_label("Effect", exact=True).select_option(label=entry.title)
        now = on_screen(page)
        chain = rendering.run(now["python"])
        pathlib.Path("chain.yaml").write_text(now["yaml"])
        assert eval(now["load"], {"gdx": gdx}) == chain
        pixels, _ = rendering.treated(entry, chain, [0])
        # Its light: files of this kind hold colours at half the width and height.
        light = [Image.fromarray(pixels[0]).convert("L"), Image.open(site / now["picture"]).convert("L")]
        error = ImageStat.Stat(ImageChops.difference(*light)).mean[0]
        assert error < 5, entry.title


def test_the_explorer_opens_at_the_effect_of_a_link(opened):
    page = opened("gallery.html")
    page.locator("section#poissonnoise").get_by_role("link", name="PoissonNoise in the explorer").click()
    page.wait_for_url("**/explorer.html?effect=PoissonNoise")
    assert "gdx.PoissonNoise(" in page.inner_text("#explorer-python")


def test_the_explorer_outlines_what_is_covered(opened):
    page = opened("explorer.html?effect=Cutout")
    page.get_by_label("Outline what is covered").focus()
    page.keyboard.press("Space")
    assert on_screen(page)["picture"].endswith("-outlined.webp")
    page.get_by_label("Effect", exact=True).select_option(label="GaussianNoise")
    assert not page.get_by_label("Outline what is covered").is_visible()
    assert not on_screen(page)["picture"].endswith("-outlined.webp")


def test_the_explorer_works_from_a_folder(site, opened):
    page = opened("explorer.html", at=site.as_uri())
    before = on_screen(page)
    page.get_by_role("slider", name="num_patches", exact=True).focus()
    page.keyboard.press("End")
    after = on_screen(page)
    assert all(before[name] != after[name] for name in ("picture", "alt", "python", "yaml"))


def test_without_scripts_pages_show_their_pictures(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/explorer.html")
    assert page.locator("#explorer-picture").is_visible()
    assert "gdx.PatchDropout(" in page.inner_text("#explorer-python")
    page.goto(f"{address}/gallery.html")
    assert page.locator("img.gallery-plain:visible").count() > 20
    assert page.locator("img.gallery-outlined:visible").count() == 0
    context.close()


def test_pictures_are_small_files(site):
    files = list((site / "gallery").iterdir())
    assert len(files) > 300
    assert sum(path.stat().st_size for path in files) < 8e6


def test_no_text_of_the_source_is_left_as_it_is_written(site):
    # Such as a role or a reference that nobody has resolved.
    for name in pages(site):
        text = re.sub(r"<(script|style|pre|code)\b.*?</\1>", "", (site / name).read_text(), flags=re.DOTALL)
        assert not re.search(r"\{(ref|doc|py:\w+|func|class)\}`|:(ref|doc|func|class|meth):`", text), name
