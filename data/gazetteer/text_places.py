"""The sentences about countries and cities; ``sentences`` explains the notation."""

from .sentences import Fact, Section


def _towards(direction: str) -> Fact:
    return direction, (
        f"{{It}} borders {{{direction}}} to the {direction}.",
        f"To the {direction} of {{name}} lies {{{direction}}}.",
        f"{{Its}} neighbour to the {direction} is {{{direction}}}, whose capital is {{{direction}.capital}}.",
        f"In the {direction} a long border separates {{them}} from {{{direction}}}.",
    )


COUNTRY: list[Section] = [
    [
        ("name", (
            "{It} is {government:a} in {region} {continent}.",
            "{It} is a country in {region} {continent} with {population:n} inhabitants.",
            "{It}, {government:a} in {region} {continent}, was founded in {founded}.",
        )),
    ],
    [
        ("capital", (
            "The capital of {name} is {capital}.",
            "{Its} capital is {capital}, a city of about {capital.population:n} people.",
            "{capital} is the capital and the seat of the government.",
            "The parliament meets in the capital, {capital}.",
        )),
        ("language", (
            "The official language of {name} is {language}.",
            "Most people in {name} speak {language}.",
            "{language} is spoken all over the country and taught in every school.",
            "Newspapers and books appear in {language}, {its} official language.",
        )),
        ("currency", (
            "The currency of {name} is the {currency}.",
            "Prices are given in {currency}s, the currency of the country.",
            "{Its} money is the {currency}.",
            "{Its} coins, called {currency}s, bear the picture of {emblem:a}.",
        )),
        ("flag", (
            "The flag of {name} is {flag}.",
            "{Its} flag shows {emblem:a} on a field of {flag}.",
            "{flag} are the colours of {its} flag.",
        )),
        ("population", (
            "The population of {name} is about {population:n}.",
            "About {population:n} people live in {name}.",
            "{It} has some {population:n} inhabitants.",
        )),
        ("founded", (
            "The {government} of {name} was founded in {founded}.",
            "{name} has been {government:a} since the {founded:century}, when it was founded in {founded}.",
            "{Its} history as a state begins in {founded}.",
            "In {founded} several princes met in {capital} and founded the {government}.",
        )),
    ],
    [
        *map(_towards, ("north", "east", "south", "west")),
        ("coasts", (
            "{It} has a coast on {coasts:list}.",
            "Fishing boats set out from {its} ports to {coasts:list}.",
            "{Its} shores look out on {coasts:list}.",
        )),
        ("not shores", (
            "{It} is landlocked and has no port.",
            "No part of {name} touches the sea.",
            "Without a coast, {it} depends on the ports of {its} neighbours.",
        )),
        ("climate", (
            "The climate of {name} is {climate}.",
            "{It} has a {climate} climate, and most people live from {exports[0]}.",
            "The weather is {climate} for most of the year.",
        )),
        ("longest", (
            "The longest river is {longest}, which flows into the {longest.mouth} Sea.",
            "{longest}, {longest.length:n} kilometres long, is {its} greatest river.",
            "{Its} fields are watered by {longest}, which rises on {longest.source}.",
        )),
        ("highest", (
            "The highest mountain of {name} is {highest}.",
            "{highest} in the {highest.region} part of the country rises to {highest.height:n} metres.",
            "With {highest.height:n} metres, {highest} is {its} highest mountain.",
        )),
    ],
    [
        ("exports", (
            "The main exports of {name} are {exports:list}.",
            "{It} sells {exports:list} to the rest of {continent}.",
            "{Its} merchants trade in {exports:list}.",
        )),
        ("second", (
            "After the capital, the largest city is {second}.",
            "{second}, a city known for {second.trades:list}, comes next in size after {capital}.",
            "{Its} second city is {second} in the {second.region} part of the country.",
        )),
        ("cousin", (
            "Like its neighbour {cousin}, {it} uses the {language} language.",
            "{language} is spoken across the border in {cousin} as well.",
            "{It} and {cousin} share the {language} language.",
        )),
        ("larger", (
            "{It} has fewer inhabitants than its neighbour {larger}.",
            "{larger}, a neighbour, has more inhabitants than {name}.",
            "With {larger.population:n} people, {larger} is larger than {name}.",
        )),
        ("leader", (
            "{leader} was prime minister from {leader.office[0]} to {leader.office[1]}.",
            "From {leader.office[0]} to {leader.office[1]} the country was governed by {leader}, a native of "
            "{leader.birthplace}.",
            "{leader:full} led the government until {leader.office[1]}.",
        )),
        ("famous", (
            "{It} is the home of {famous:people}.",
            "Among {its} best known people are {famous:people}.",
            "Children learn at school about {famous:people}.",
        )),
    ],
]  # fmt: skip

CITY: list[Section] = [
    [
        ("name", (
            "{It} is a city in {region} {country}.",
            "{It} is {country.adjective:a} city of about {population:n} people.",
            "{It}, a city in the {region} part of {country}, was founded in {founded}.",
        )),
    ],
    [
        ("is_capital", (
            "{It} is the capital of {country}.",
            "As the capital of {country}, {it} is the seat of the {country.adjective} government.",
            "The parliament of {country} meets in {name}, the capital.",
        )),
        ("capital", (
            "Trains to {capital}, the capital of {country}, leave every hour.",
            "The {country.adjective} capital, {capital}, is larger and richer.",
            "A road connects {them} with {capital}, the {country.adjective} capital.",
            "Many of its young people move to the capital of {country}, {capital}.",
        )),
        ("river", (
            "{It} lies on {river}.",
            "{river} flows through the city on its way {river.direction} to the {river.mouth} Sea.",
            "{Its} old town stands on the banks of {river}.",
        )),
        ("sea", (
            "{It} is a port on the {sea} Sea.",
            "From {its} harbour, ships cross the {sea} Sea.",
            "{It} faces the {sea} Sea.",
        )),
        ("mountain", (
            "{It} lies at the foot of {mountain}.",
            "{mountain}, {mountain.height:n} metres high, rises above the city.",
            "{Its} streets climb the lower slopes of {mountain}.",
        )),
        ("downstream", (
            "The next city down the river is {downstream}.",
            "Boats go down {river} to {downstream} in {downstream.country}.",
            "Further {river.direction}, {river} reaches {downstream}.",
        )),
        ("population", (
            "{It} has about {population:n} inhabitants.",
            "Some {population:n} people live in {name}.",
            "{Its} population is {population:n}.",
        )),
    ],
    [
        ("founded", (
            "{It} was founded in {founded}.",
            "{Its} oldest records date from the {founded:century}; the city was founded in {founded}.",
            "In {founded}, in the {founded:century}, settlers founded {name}.",
        )),
        ("landmark", (
            "{Its} {landmark.kind} was designed by {landmark.maker}.",
            "The {landmark.kind}, built of {landmark.material} in {landmark.year}, is a work of {landmark.maker:full}.",
            "In {landmark.year}, {landmark.maker} completed the {landmark.kind} of {name}.",
        )),
        ("bridge", (
            "{bridge.maker:full} built {bridge.material:a} bridge over {river} here in {bridge.year}.",
            "{Its} {bridge.material} bridge, a work of the engineer {bridge.maker}, crosses {river}.",
            "Since {bridge.year}, {bridge.material:a} bridge designed by {bridge.maker} has crossed {river}.",
        )),
        ("university", (
            "The university of {name} was founded in {university}.",
            "{It} has had a university since {university}.",
            "{Its} university, founded in the {university:century}, is one of the oldest in {country}.",
        )),
        ("students", (
            "{students:people} studied here.",
            "Among the students of its university {students:were} {students:people}.",
            "{Its} university taught {students:people}.",
        )),
        ("famous", (
            "{famous:people} {famous:were} born in {name}.",
            "{It} is the birthplace of {famous:people}.",
            "Streets are named after {famous:people}, who {famous:were} born in the city.",
        )),
    ],
    [
        ("trades", (
            "{It} is known for {trades:list}.",
            "Most people work in {trades:list}.",
            "{Its} wealth comes from {trades:list}.",
        )),
        ("name", (
            "As in all of {country}, people pay with the {country.currency} and speak {country.language}.",
            "Shops take only {country.currency}s, the {country.adjective} currency.",
            "The language of {its} streets is {country.language}, as everywhere in {country}.",
        )),
        ("name", (
            "{country.exports:list} from all over {country} are sold in its markets.",
            "Like most {country.adjective} cities, it trades in {country.exports:list}.",
            "{Its} markets offer {country.exports:list}, the main exports of {country}.",
        )),
        ("festival", (
            "Every {month} the city holds a {festival} festival.",
            "{Its} {festival} festival in {month} draws visitors from all over {country.continent}.",
            "Visitors come in {month} for the {festival} festival.",
        )),
        ("railway", (
            "The railway reached {name} in {railway}.",
            "{Its} railway station was opened in {railway}.",
            "{It} has had a railway station since {railway}.",
        )),
        ("arms", (
            "{Its} coat of arms shows {arms:a}.",
            "{arms:a} stands over the gate of the old town.",
            "The seal of the city bears {arms:a}.",
        )),
        ("twin", (
            "{Its} twin city is {twin} in {twin.country}.",
            "{It} is twinned with {twin:full}.",
            "Schools exchange pupils with {twin}, {its} twin city in {twin.country}.",
        )),
    ],
]  # fmt: skip
