"""The papers of the methods that a recipe uses."""

from typing import NamedTuple

from cbsn.recipes import Recipe


class Paper(NamedTuple):
    """A paper to cite: its authors, title and venue in words, and its DOI."""

    text: str
    doi: str


def _arxiv(number: str, text: str) -> Paper:
    return Paper(f"{text}, arXiv {number}", f"10.48550/arXiv.{number}")


_CBSN = _arxiv(
    "2304.09507",
    "Jang et al., Self-supervised Image Denoising with Downsampled Invariance Loss and Conditional "
    "Blind-Spot Network, ICCV 2023",
)
_AP_BSN = _arxiv(
    "2203.11799",
    "Lee et al., AP-BSN: Self-Supervised Denoising for Real-World Images via Asymmetric PD and "
    "Blind-Spot Network, CVPR 2022",
)
_SS_BSN = _arxiv(
    "2305.09890",
    "Han and Yu, SS-BSN: Attentive Blind-Spot Network for Self-Supervised Denoising with Nonlocal "
    "Self-Similarity, IJCAI 2023",
)
_TM_BSN = _arxiv(
    "2604.04484",
    "Park et al., TM-BSN: Triangular-Masked Blind-Spot Network for Real-World Self-Supervised "
    "Image Denoising, CVPR 2026",
)
_NOISE2VOID = _arxiv(
    "1811.10980",
    "Krull et al., Noise2Void: Learning Denoising from Single Noisy Images, CVPR 2019",
)
_STRUCT_N2V = Paper(
    "Broaddus et al., Removing Structured Noise with Self-Supervised Blind-Spot Networks, "
    "ISBI 2020",
    "10.1109/ISBI45749.2020.9098336",
)
_N2V2 = _arxiv(
    "2211.08512",
    "Höck et al., N2V2: Fixing Noise2Void Checkerboard Artifacts with Modified Sampling Strategies "
    "and a Tweaked Network Architecture, ECCV Workshops 2022",
)
_PN2V = _arxiv(
    "1906.00651",
    "Krull et al., Probabilistic Noise2Void: Unsupervised Content-Aware Denoising, 2020",
)
_NOISE2NOISE = _arxiv(
    "1803.04189",
    "Lehtinen et al., Noise2Noise: Learning Image Restoration without Clean Data, ICML 2018",
)
_AT_BSN = _arxiv(
    "2303.16783",
    "Chen et al., Exploring Efficient Asymmetric Blind-Spots for Self-Supervised Denoising in "
    "Real-World Scenarios, CVPR 2024",
)
_UNET = _arxiv(
    "1505.04597",
    "Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, "
    "MICCAI 2015",
)
_ATTENTION_UNET = _arxiv(
    "1804.03999",
    "Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas, 2018",
)

_OF_OBJECTIVE = {
    "AsymmetricPixelShuffle": _AP_BSN,
    "Distillation": _AT_BSN,
    "DownsampledInvariance": _CBSN,
    "Noise2Noise": _NOISE2NOISE,
    "Noise2Void": _NOISE2VOID,
    "ProbabilisticNoise2Void": _PN2V,
}
_OF_NETWORK = {
    "BlindSpotUNet": _UNET,
    "ConditionalBlindSpotNetwork": _CBSN,
    "DilatedBlindSpotNetwork": _AP_BSN,
    "ProbabilisticBlindSpotUNet": _UNET,
    "ResidualAttentionUNet": _ATTENTION_UNET,
    "SelfSimilarityBlindSpotNetwork": _SS_BSN,
    "TriangularMaskedBlindSpotNetwork": _TM_BSN,
}
# Of settings of the network that a paper is about, where they differ from these values.
_OF_SETTING = {
    "mask_shape": ("point", _STRUCT_N2V),
    "pooling": ("max", _N2V2),
    "replacement": ("random", _N2V2),
}


def papers_of(recipe: Recipe) -> list[Paper]:
    """Returns the papers of a recipe's objective, network and settings, each once.

    Example:
        >>> papers_of(RECIPES["cbsn"])[0].doi
        '10.48550/arXiv.2304.09507'
    """
    found = [_OF_OBJECTIVE.get(recipe.objective)]
    for name, (usual, paper) in _OF_SETTING.items():
        if recipe.network_config.get(name, usual) != usual:
            found.append(paper)
    found.append(_OF_NETWORK.get(recipe.network))
    return [*dict.fromkeys(paper for paper in found if paper)]
