"""Profiles and models.toml: known keys only, every value given, readable without torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pertstack._base.errors import InputError, MissingFileError, NeedsExtraError, UnknownNameError
from pertstack.fit import registry
from pertstack.fit.external.card import load_card
from pertstack.fit.profiles import PROFILES, file_profile, hyper_parameters, load_models_toml, profile
from pertstack.fit.torch import NEEDS, ROWS
from pertstack.fit.torch.common import settings
from pertstack.fit.torch.common.make_settings import make_settings
from pertstack.fit.torch.common.settings import SETTINGS

PRINTED = {
    "Biolord",
    "MultiDCP",
    "MultiDCP_CheMoE",
    "PDGrapher",
    "ChemCPA",
    "ChemCPASupervised",
    "scGen",
    "TranSiGen",
    "TranSiGen_SparseMoE",
    "TranSiGen_BalancedMoE",
    "CheMoE",
}


def test_names_are_those_of_the_study():
    assert {row.name for row in ROWS} == set(NEEDS) == set(SETTINGS) == PRINTED


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("model", sorted(PRINTED))
def test_a_profile_gives_every_value(name, model):
    values = profile(name, model)
    assert make_settings(SETTINGS[model], model, values).to_json() == values


def test_paper_is_as_published_where_it_can_be():
    assert profile("paper", "Biolord")["decoder_width"] == 4096 and profile("paper", "PDGrapher")["bins"] == 500
    assert profile("paper", "TranSiGen")["encoder"] == [1200] and profile("paper", "ChemCPA")["latent"] == 32


def test_published_is_for_biolord_alone_and_reads_as_its_card(tmp_path):
    found, card = profile("published", "Biolord"), load_card("biolord_published").params
    same = {
        "decoder_width": "decoder_width",
        "decoder_depth": "decoder_depth",
        "n_latent": "latent",
        "n_latent_attribute_ordered": "n_ordered",
        "reconstruction_penalty": "reconstruction_penalty",
        "unknown_attribute_penalty": "latent_penalty",
        "unknown_attribute_noise_param": "latent_noise",
        "latent_lr": "latent_learning_rate",
        "latent_wd": "latent_weight_decay",
        "decoder_lr": "learning_rate",
        "attribute_lr": "attribute_learning_rate",
        "attribute_wd": "attribute_weight_decay",
        "max_epochs": "epochs",
    }
    assert {theirs: found[ours] for theirs, ours in same.items()} == {theirs: card[theirs] for theirs in same}
    assert 2 * found["batch_size"] == card["batch_size"]  # ours counts pairs, the package profiles
    with pytest.raises(InputError, match="TranSiGen has no profile 'published'"):
        profile("published", "TranSiGen")
    path = tmp_path / "models.toml"
    path.write_text('[Biolord]\nprofile = "published"\nlatent = 7\n')
    assert load_models_toml(path)["Biolord"] == {**found, "latent": 7}


def test_a_baseline_has_no_profile_of_its_own():
    assert profile("fast", "mean_treated") == {}
    with pytest.raises(UnknownNameError):
        hyper_parameters("mean_treated", {"epochs": 3})


def test_a_models_file_names_profiles_and_changes(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text('profile = "fast"\n[transigen]\nlatent = 7\n[Biolord]\nprofile = "paper"\ninfer = "zero"\n')
    found = load_models_toml(path)
    assert file_profile(path) == "fast" and set(found) == {"TranSiGen", "Biolord"}
    assert found["TranSiGen"] == {**profile("fast", "TranSiGen"), "latent": 7}
    assert found["Biolord"] == {**profile("paper", "Biolord"), "infer": "zero"}


def test_whole_numbers_and_nothing_are_numbers_where_a_model_takes_them(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text("[ridge]\npenalty = 2\n[perturbation_knn]\nkappa = 0\nk = 7\n[scgen_published]\npatience = 3\n")
    found = load_models_toml(path)
    assert found["ridge"] == {"penalty": 2} and found["perturbation_knn"] == {"kappa": 0, "k": 7}


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("[TranSiGen]\nlatnet = 7\n", UnknownNameError, "Did you mean 'latent'"),
        ("[TranSigne]\n", UnknownNameError, "Did you mean 'TranSiGen'"),
        ('[TranSiGen]\nprofile = "quick"\n', UnknownNameError, "fast"),
        ('profile = "quick"\n', UnknownNameError, "fast"),
        ("[TranSiGen]\nlatent = 7.5\n", InputError, "must be int"),
        ("[TranSiGen]\nlatent = 0\n", InputError, "above 0"),
        ("[TranSiGen]\nbeta = -1\n", InputError, "0 or more"),
        ("[TranSiGen]\ndropout = 1.0\n", InputError, "below 1"),
        ("[TranSiGen]\nencoder = 7\n", InputError, "list of whole numbers"),
        ("[TranSiGen]\nlearning_rate = nan\n", InputError, "above 0"),
        ("[Biolord]\ninfer = 'all'\n", InputError, "'control', 'zero'"),
        ("[TranSiGen]\ndose = 1\n", InputError, "must be bool"),
        ("[TranSiGen]\nbatch_size = 1\n", InputError, "at least 2"),
        ("latent = 7\n", InputError, "outside a table"),
        ("[ridge]\npenaltyy = 1\n", UnknownNameError, "Did you mean 'penalty'. Known: on_missing, penalty, start"),
        ("[mean_treated]\nk = 1\n", UnknownNameError, "it has none"),
        ("[ridge]\npenalty = 'soon'\n", InputError, "models.toml: ridge.penalty is 'soon'; it must be a number"),
        ("[ridge]\npenalty = true\n", InputError, "must be a number"),
        ("[ridge]\npenalty = nan\n", InputError, "must be a number"),
        ("[ridge]\npenalty = -1\n", InputError, "above 0"),
        ("[ridge]\nstart = 'contrl'\n", InputError, "'control'"),
        ("[perturbation_knn]\nk = 2.5\n", InputError, "a whole number, such as 5"),
        ("[perturbation_knn]\nk = 0\n", InputError, "1 or more"),
        ("[low_rank]\nrank = [3]\n", InputError, "a whole number, such as 10"),
        ("[mlp]\nlearning_rate = 0\n", InputError, "above 0"),
        ("[scgen_published]\nn_layers = 'two'\n", InputError, "must be as 2 is"),
        ("[scgen_published]\nlayers = 2\n", UnknownNameError, "n_layers"),
        ("[TranSiGen\n", InputError, "not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_models_file_is_said(text, kind, says, tmp_path):
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(kind, match=says):
        load_models_toml(path)


def test_a_missing_models_file_is_said(tmp_path):
    with pytest.raises(MissingFileError):
        load_models_toml(tmp_path / "models.toml")


def test_listing_and_profiles_do_not_import_torch():
    code = (
        "import sys; from pertstack.fit.registry import list_models; from pertstack.fit.profiles import profile;"
        "list_models(); profile('fast', 'Biolord'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_torch_a_model_says_which_extra_brings_it(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    with pytest.raises(NeedsExtraError, match=r"pip install 'pertstack\[models\]'"):
        registry.get_model("TranSiGen")
    assert registry.get_row("TranSiGen").summary


def test_importing_any_file_of_the_networks_without_torch_says_the_same():
    """Settings and scaling can be read without torch; whatever needs it says so, never as a bare ImportError."""
    here = Path(settings.__file__).parents[1]
    files = sorted(".".join(p.relative_to(here).with_suffix("").parts) for p in here.rglob("[a-z]*.py"))
    assert {"biolord", "common.trainer"} <= set(files)
    code = (
        "import sys, importlib; sys.modules['torch'] = None\n"
        "from pertstack._base.errors import NeedsExtraError\n"
        f"for file in {files!r}:\n"
        "    try: importlib.import_module('pertstack.fit.torch.' + file)\n"
        "    except NeedsExtraError as error: print(file, 'pertstack[models]' in str(error))\n"
        "from pertstack.fit.registry import load_target\n"
        "try: load_target('pertstack.fit.torch.biolord:Biolord')\n"
        "except NeedsExtraError: print('as a job')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    plain = {"common.settings", "common.make_settings", "common.scaling"}
    said = [f"{file} True" for file in files if file not in plain]
    assert done.stdout.splitlines() == [*said, "as a job"]
