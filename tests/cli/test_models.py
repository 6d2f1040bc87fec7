import json

from cbsn.models import SHIPPED
from cbsn.models.loading import load_model


def test_the_table_has_all_models_that_ship(run_here):
    run = run_here("models")
    assert run.returncode == 0, run.stderr
    for name in ("photo-large", "photo"):
        assert f"\n{name}: " in f"\n{run.stdout}"
        assert str(SHIPPED / name.replace("-", "_")) in run.stdout
    assert "39.58, 0.933" in run.stdout


def test_facts_are_those_of_the_models(run_here):
    models = json.loads(run_here("models", "--json").stdout)
    shipped = {path.parent.name.replace("_", "-") for path in SHIPPED.glob("*/recipe.json")}
    assert models.keys() == shipped
    for name, facts in models.items():
        recipe, network = load_model(name)
        config = recipe.network_config
        assert facts["parameters"] == network.count_params()
        assert f"{config['filters']} channels, {config['depth']} halvings" in facts["network"]


def test_figures_are_those_of_the_cards():
    for name, facts in json.loads((SHIPPED / "models.json").read_text()).items():
        card = (SHIPPED / f"{name.replace('-', '_')}.md").read_text(encoding="utf-8")
        for each in facts["figures"].values():
            psnr, ssim = each["denoised"]
            assert f"{psnr:.2f}, {ssim:.3f}".replace("0.", ".", 1) in card.replace(" 0.", " .")


def test_without_the_models_it_says_so(run_here, tmp_path, monkeypatch):
    monkeypatch.setattr("cbsn.cli.models.SHIPPED", tmp_path)
    run = run_here("models")
    assert run.returncode == 2 and "Install the package again" in run.stderr
