"""Questions for a chat model: made of topics and forms, tasks of code, arithmetic and rewriting.

`held_out` has other topics, other forms and other tasks than `questions`. Replace both by what your
users ask.

python -m examples.chat_questions --count 1600 --output out/questions.jsonl
python -m examples.chat_questions --held-out --output out/held-out.jsonl
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

TOPICS = (
    "photosynthesis", "the water cycle", "gravity", "the printing press", "bicycles", "volcanoes",
    "a balanced diet", "the Roman Empire", "electric cars", "recycling", "the immune system",
    "chess", "solar energy", "tides", "the stock market", "bees", "public libraries", "vaccines",
    "rainbows", "earthquakes", "online shopping", "the human heart", "glaciers", "bridges",
    "learning a language", "sleep", "coffee", "the moon", "music lessons", "gardening",
    "regular exercise", "trains", "computer memory", "databases", "sorting a list", "forests",
    "the French Revolution", "good writing", "time management", "teamwork", "wind turbines",
    "whales", "maps", "bread", "clocks", "elections", "inflation", "encryption", "dinosaurs",
    "friendship", "deserts", "the Industrial Revolution", "batteries", "ants", "black holes",
    "opera", "swimming", "taxes", "compilers", "the Silk Road", "tea", "hurricanes", "museums",
    "antibiotics", "airplanes", "saving money", "public speaking", "the nervous system", "cats",
    "robots", "rivers", "the Olympic Games", "poetry", "cheese", "genetics", "marketing",
    "job interviews", "small businesses", "the internet", "satellites", "painting", "camping",
    "climate change", "coral reefs", "ancient Egypt", "democracy", "insurance", "pottery",
    "machine learning", "web browsers", "hiking", "penguins", "stress", "chocolate", "rice",
    "smartphones", "the solar system", "jazz", "football", "nuclear power", "soil", "steel",
    "the Renaissance", "human rights", "city planning", "video games", "mushrooms", "yoga",
    "school uniforms", "remote work", "the ocean floor", "probability", "fractions", "lightning",
    "spiders", "the Great Wall of China", "wood", "glass", "folk tales", "supply and demand",
    "cloud computing", "open source software", "DNA", "plastic", "dogs", "horses", "islands",
    "mountains", "winter holidays", "moving to a new city", "cooking for beginners", "credit cards",
    "photography", "theatre", "Shakespeare", "Leonardo da Vinci", "Marie Curie", "Isaac Newton",
    "Japan", "Brazil", "Kenya", "India", "Canada", "the human eye", "magnets", "atoms", "evolution",
    "fire safety", "first aid", "a healthy breakfast", "houseplants", "conflict at work",
)  # fmt: skip
FORMS = (
    "Explain {} in simple words.", "Write a short paragraph about {}.",
    "List five facts about {}.", "Why is it useful to know about {}?",
    "Write a short story for children about {}.", "What should a beginner know about {}?",
    "Summarise the history of {} in a few sentences.", "Give three questions and answers on {}.",
    "Write an email to a friend about {}.", "What are common mistakes people make about {}?",
    "Compare {} with something similar.", "Write a poem of eight lines about {}.",
    "What are the advantages and disadvantages of {}?", "Tell me something surprising about {}.",
    "How would you explain {} to a ten-year-old?", "Make a table of key terms about {}.",
    "Write a blog post about {} with a title and an introduction.", "How does {} affect society?",
    "Imagine you are an expert on {}. What would you tell me first?",
    "Write a dialogue between a teacher and a student about {}.",
    "What is the future of {}?", "Give me step-by-step advice on {}.",
    "Describe {} in exactly three sentences.", "Write an outline of a talk about {}.",
    "What do people often ask about {}, and what are the answers?",
    "Write a product description that has to do with {}.",
)  # fmt: skip
CODE = (
    "reverses a string", "adds all numbers of a list", "checks whether a number is prime",
    "counts the words of a text", "sorts a list of names", "finds the largest number of a list",
    "removes duplicates from a list", "reads a CSV file", "computes a factorial",
    "converts Celsius to Fahrenheit", "merges two dictionaries", "finds common elements",
    "writes lines to a file", "computes the mean and the median", "checks for a palindrome",
    "generates Fibonacci numbers", "counts vowels", "flattens a nested list", "parses a date",
    "draws a random password",
)  # fmt: skip
LANGUAGES = ("Python", "JavaScript", "Java", "C")
SENTENCES = (
    "The meeting was moved to Thursday because two of us are travelling.",
    "Our shop sells fresh bread and closes at six in the evening.",
    "She forgot her umbrella, so she waited in the cafe until the rain stopped.",
    "The new bridge will be opened in spring and replaces the ferry.",
    "Many people walk more since they count their steps.",
    "He repaired the old radio with parts from a broken clock.",
    "The team finished the report late, but the customer was happy with it.",
    "Cheap flights are often tiring, and trains are slower but more pleasant.",
)
CHANGES = (
    "Rewrite in a more formal style: {}", "Translate into French: {}",
    "Translate into German: {}", "Translate into Spanish: {}", "Continue this story: {}",
    "Make this shorter: {}", "What questions does this sentence answer? {}",
    "Write three other sentences with the same meaning: {}",
)  # fmt: skip
SUMS = (
    "A box holds {} pencils. How many pencils are in {} boxes?",
    "Tom has {} apples and buys {} more. How many has he now?",
    "A ticket costs {} dollars. What do {} tickets cost?",
    "A train travels {} km an hour. How far does it get in {} hours?",
    "What is {} plus {}? Explain each step.",
    "Anna reads {} pages a day. How many pages does she read in {} days?",
)

OTHER_TOPICS = (
    "honey", "lighthouses", "the violin", "elephants", "the Vikings", "snow", "submarines",
    "typewriters", "olive oil", "comets", "kites", "allergies", "newspapers", "tomatoes",
    "neural networks", "rent", "Albert Einstein", "Iceland", "the human ear", "wool",
    "being on time", "road signs", "the alphabet", "sharks",
)  # fmt: skip
OTHER_FORMS = (
    "What is special about {}?", "Write a letter to a newspaper about {}.",
    "Give me ten short tips or facts on {}.", "Explain in detail what one can learn from {}.",
)  # fmt: skip
OTHER_TASKS = (
    "Write a Python function that returns the second largest number of a list, and explain it.",
    "Write a Java method that counts how often each letter occurs in a text.",
    "A baker makes 48 rolls an hour and works for 7 hours. How many rolls are that?",
    "Rewrite for a child: The committee postponed its decision until further notice.",
    "You are a guide in a castle. Welcome your visitors and tell them what they will see.",
    "Plan a weekend in a city that I have never been to.",
    "My neighbour is noisy at night. What can I say without starting a quarrel?",
    "Write a short review of a film that you invent.",
)


def questions() -> Iterator[str]:
    """All of them, in an order of their own."""
    yield from (form.format(topic) for topic, form in product(TOPICS, FORMS))
    yield from (
        f"Write a function in {name} that {task}." for name, task in product(LANGUAGES, CODE)
    )
    yield from (change.format(sentence) for sentence, change in product(SENTENCES, CHANGES))
    for number, sum_ in product(range(20), SUMS):
        yield sum_.format(12 + 7 * number % 50, 3 + 5 * number % 17)


def held_out() -> Iterator[str]:
    """Questions on topics that `questions` does not have."""
    for number, topic in enumerate(OTHER_TOPICS):
        yield OTHER_FORMS[number % len(OTHER_FORMS)].format(topic)
    yield from OTHER_TASKS


def shuffled(texts: Iterator[str]) -> list[str]:
    """In an order of chance that stays the same; none twice."""
    found = list(dict.fromkeys(texts))
    random.Random(0).shuffle(found)
    return found


def write_chats(file: Path, texts: Sequence[str]) -> Path:
    """A chat of one message for each."""
    rows = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1600, help="of the questions to learn from")
    parser.add_argument("--held-out", action="store_true", help="those for a measurement instead")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    found = shuffled(held_out()) if options.held_out else shuffled(questions())[: options.count]
    print(f"{len(found)} questions: {write_chats(options.output, found)}")


if __name__ == "__main__":
    main()
