"""Packaging. RecBole 1.2.1 caps Ray at 2.6.3, which has no wheel for Python 3.12 and newer."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "recbole_ganprompt/__init__.py").read_text())[1]
readme = here / "README.md"

OLD, NEW = 'python_version < "3.12"', 'python_version >= "3.12"'

# What RecBole's Ray needs to import: pkg_resources, numpy 1 and a pyarrow built for it.
with_recbole = ["recbole==1.2.1", "setuptools<81", "numpy<2", "pandas<3", "pyarrow<20"]

# RecBole's own requirements, with a Ray of today: there it is installed with --no-deps.
without_recbole = ["scipy", "colorlog==4.7.2", "colorama==0.4.4", "tensorboard"]
without_recbole += ["thop>=0.1.1.post2207130030", "plotly", "texttable", "ray[tune]>=2.10"]
without_recbole += ["setuptools"]  # thop imports distutils, which Python 3.12 removed

setup(
    name="recbole-ganprompt",
    version=version,
    description="GANPrompt and language-model recommenders as a plugin for RecBole",
    long_description=readme.read_text(encoding="utf-8") if readme.is_file() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=[*find_packages(include=["recbole_ganprompt*"]), "recbole_ganprompt.properties"],
    package_dir={"recbole_ganprompt.properties": "properties"},
    package_data={
        "recbole_ganprompt.properties": ["*.yaml", "*/*.yaml", "*/*.txt"],
        "recbole_ganprompt.report": ["page.html", "page.css", "page.js"],
    },
    install_requires=[
        "torch>=2.1,<2.14",
        "transformers>=5.0,<6",
        "peft>=0.18",
        "safetensors>=0.4",
        "filelock>=3.12",
        "sentencepiece>=0.2",  # tokenizers of T5 and Llama that come without a tokenizer.json
        "protobuf>=3.20",
        "numpy>=1.24",
        "pandas>=2.0",
        "scikit-learn>=1.2",
        "joblib>=1.2",
        "matplotlib>=3.7",
        "jinja2>=3",
        "psutil>=5.9",
        "tabulate>=0.9",
        "tqdm>=4.60",
        "pyyaml>=6.0",
        *(f"{requirement}; {OLD}" for requirement in with_recbole),
        *(f"{requirement}; {NEW}" for requirement in without_recbole),
    ],
    extras_require={
        "quantization": ["bitsandbytes>=0.43"],
        # The page's tests drive Chromium where it is installed, with the rules of axe.
        "test": [
            "hyperopt>=0.2.7",
            "hypothesis>=6",
            "pytest>=8",
            "pytest-xdist>=3",
            "ruff==0.17.*",
            "selenium>=4",
            "axe-core-python>=0.1",
        ],
    },
    entry_points={
        "console_scripts": [
            "recbole-ganprompt=recbole_ganprompt.cli:main",
            "recbole-ganprompt-benchmark=recbole_ganprompt.study.benchmark:main",
            "recbole-ganprompt-hyper=recbole_ganprompt.study.tune:main",
            "recbole-ganprompt-ablation=recbole_ganprompt.study.ablation:main",
            "recbole-ganprompt-robustness=recbole_ganprompt.study.robustness:main",
        ]
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
