"""HTML pages from Jinja templates that lie beside the code which fills them.

Reports, which are single files, share the head and the slider of report_base.html.
"""

from jinja2 import (
    ChoiceLoader,
    Environment,
    PackageLoader,
    StrictUndefined,
    Template,
    select_autoescape,
)


def page_template(package: str, name: str) -> Template:
    """Return a template in which values are escaped, and undefined names raise.

    Args:
        package: the package whose folder holds the template, such as "isr_jax.demo".
        name: the template's file name.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("isr_jax", ".")]),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
