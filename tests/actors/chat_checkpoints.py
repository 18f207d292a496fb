"""A tokenizer of bytes that adds a BOS to every text, and two chat templates."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_BOS = (
    "{{ bos_token }}{%- for message in messages %}\n"
    "    {%- if loop.index0 > 8 %}{% break %}{% endif %}\n"
    "    {%- if message.role == 'assistant' %}\n"
    "    {% generation %}{{ message.content | trim }}{{ eos_token }}{% endgeneration %}\n"
    "    {%- elif (message.role == 'user') != (loop.index0 % 2 == 0) %}\n"
    "    {{ raise_exception('roles must alternate') }}\n"
    "    {%- else %}[{{ message | tojson }}]{% endif %}\n"
    "{%- endfor %}"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = len(SPECIAL) + 256
CHAT = [
    {"role": "user", "content": "Who was   Ada <b>Lovelace</b>? Ω"},
    {"role": "assistant", "content": " A mathematician.\n"},
    {"role": "user", "content": "  When?"},
]


def save_tokenizer(folder: Path, **settings: object) -> Path:
    """`settings` go to tokenizer_config.json."""
    vocabulary = {text: i for i, text in enumerate(SPECIAL)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary |= {symbol: i for i, symbol in enumerate(alphabet, len(SPECIAL))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
