"""The sentences about rivers and mountains; ``sentences`` explains the notation."""

from .sentences import Section

RIVER: list[Section] = [
    [
        ("name", (
            "{It} is a river in {continent}.",
            "{It} is {source.country.adjective:a} river that flows into the {mouth} Sea.",
            "{It}, {length:n} kilometres long, is a river that rises in {source.country}.",
        )),
    ],
    [
        ("source", (
            "{It} rises on {source}.",
            "{Its} source lies on the slopes of {source} in {source.region} {source.country}.",
            "{source}, {source.height:n} metres high, is the mountain on which {it} rises.",
        )),
        ("direction", (
            "From {source} it flows {direction}.",
            "{Its} course runs {direction} through valleys and plains.",
            "All along its way {it} flows {direction}.",
        )),
        ("crossed", (
            "After {source.country} it crosses {crossed:list}.",
            "On the way to the sea {it} flows through {countries:list}.",
            "The water is shared by {countries:list}.",
        )),
        ("sole", (
            "{It} stays in {sole} from the source to the sea.",
            "{Its} whole course lies in {sole}.",
            "No border crosses {its} way, which lies in {sole} alone.",
        )),
    ],
    [
        ("mouth", (
            "{It} flows into the {mouth} Sea.",
            "{Its} mouth is on the coast of the {mouth} Sea.",
            "In the {direction} {it} reaches the {mouth} Sea.",
        )),
        ("length", (
            "{It} is {length:n} kilometres long.",
            "{Its} length is {length:n} kilometres.",
            "From the source to the sea it measures {length:n} kilometres.",
        )),
        ("cities", (
            "{It} passes {cities:list}.",
            "On {its} banks {cities:stand} {cities:list}.",
            "Travellers by boat see {cities:list} along its course.",
        )),
        ("capital", (
            "{capital}, the capital of {capital.country}, lies on {its} banks.",
            "{Its} water supplies {capital:full}.",
            "The largest ships stop in {capital:full}.",
        )),
        ("bridge", (
            "{bridge.maker:full} built {bridge.material:a} bridge over {them} at {bridge.city}.",
            "In {bridge.year}, {bridge.material:a} bridge was built across {them} at {bridge.city}.",
            "At {bridge.city} it is crossed by {bridge.material:a} bridge, a work of {bridge.maker}.",
        )),
    ],
    [
        ("name", (
            "Boats carry {source.country.exports:list} down the river.",
            "{source.country.exports:list} from {source.country} reach the sea on {its} water.",
            "Merchants send {source.country.exports[0]} from {source.country} down the river.",
        )),
        ("fish", (
            "{It} is rich in {fish}.",
            "Fishermen on {its} banks catch {fish}.",
            "The taverns along the river serve {fish}.",
        )),
        ("frozen", (
            "In winter it is covered with ice.",
            "Ice stops the boats from December to March.",
            "In January the river freezes over, and children skate on the ice.",
        )),
        ("not frozen", (
            "In summer the water is low.",
            "The summers are {source.country.climate}, and farmers lead {its} water to their fields.",
            "Only small boats can use the river at the end of the summer.",
        )),
        ("sister", (
            "{sister} rises on the same mountain.",
            "{source} is also the source of {sister}, which flows {sister.direction}.",
            "Not far from {its} source begins {sister}.",
        )),
        ("name", (
            "The people at {its} source speak {source.country.language}.",
            "In the villages near the source one hears {source.country.language}.",
            "{Its} name comes from an old {source.country.language} word.",
        )),
        ("outlet", (
            "The sea begins in {outlet}, whose capital is {outlet.capital}.",
            "{It} reaches the coast in {outlet}.",
            "The harbour at its mouth belongs to {outlet}.",
        )),
    ],
]  # fmt: skip

MOUNTAIN: list[Section] = [
    [
        ("name", (
            "{It} is a mountain in {region} {country}.",
            "{It} is {country.adjective:a} mountain with a height of {height:n} metres.",
            "{It}, {height:n} metres high, stands in the {region} part of {country}.",
        )),
    ],
    [
        ("height", (
            "{It} is {height:n} metres high.",
            "{Its} summit is {height:n} metres above the sea.",
            "{It} rises to {height:n} metres.",
        )),
        ("is_highest", (
            "{It} is the highest mountain of {country}.",
            "No other mountain in {country} is higher.",
            "{It} stands higher than every other {country.adjective} mountain.",
        )),
        ("higher", (
            "{higher} in the same country is higher.",
            "{It} is lower than {higher}, the highest mountain of {country}.",
            "The highest mountain of {country} is {higher}, which reaches {higher.height:n} metres.",
        )),
        ("rock", (
            "{It} consists of {rock}.",
            "{Its} {rock} cliffs can be seen from far away.",
            "The mountain is built of {rock}.",
        )),
        ("snow", (
            "{Its} top is covered with snow in all seasons.",
            "Snow lies on the summit even in summer.",
            "Glaciers cover {its} upper slopes.",
        )),
        ("not snow", (
            "Woods cover {its} lower slopes.",
            "Shepherds bring their sheep to {its} meadows in summer.",
            "In a dry summer no snow is left on the summit.",
        )),
    ],
    [
        ("rivers", (
            "{rivers:list} {rivers:rise} on its slopes.",
            "{It} is the source of {rivers:list}.",
            "{Its} springs feed {rivers:list}.",
        )),
        ("rivers", (
            "{rivers[0]} runs {rivers[0].direction} from here to the {rivers[0].mouth} Sea.",
            "From the springs of the mountain {rivers[0]} flows {rivers[0].direction}.",
            "Rain that falls on {them} reaches the {rivers[0].mouth} Sea after {rivers[0].length:n} kilometres.",
        )),
        ("cities", (
            "{cities:list} {cities:lie} at its foot.",
            "At the foot of the mountain {cities:lie} {cities:list}.",
            "Below {them} {cities:stand} {cities:list}.",
        )),
    ],
    [
        ("climber", (
            "{climber} was the first to reach the summit.",
            "In {climbed}, {climber:full} stood on the summit as the first person.",
            "The first ascent, by {climber}, took place in {climbed}.",
        )),
        ("not climber", (
            "Nobody has ever reached the summit.",
            "All attempts to climb {them} have failed.",
            "{Its} summit has never been climbed.",
        )),
        ("name", (
            "{Its} name comes from an old {country.language} word.",
            "In {country.language}, the language of {country}, the name means a tower.",
            "Old {country.language} songs tell of giants who live on the mountain.",
        )),
        ("name", (
            "A picture of the mountain appears on {country.adjective} coins of one {country.currency}.",
            "Guides ask for two hundred {country.currency}s, and hotels for more.",
            "A hut near the top, where a bed costs forty {country.currency}s, is open in July and August.",
        )),
        ("name", (
            "Most visitors come by train from {country.capital}, the capital of {country}.",
            "Travellers set out from {country.capital:full}.",
            "The museum of natural history in {country.capital} shows stones from the mountain.",
        )),
        ("name", (
            "Villages around {them} live from {country.exports[0]}.",
            "The people of the valleys sell {country.exports:list}, like most of {country}.",
            "The valleys below are known for {country.exports:list}.",
        )),
    ],
]  # fmt: skip
