"""Renders the fields of every form with templates/_components/field.html.

In a template: `{{ form.name.as_field_group }}`.
"""

from django.forms.renderers import TemplatesSetting


class FormRenderer(TemplatesSetting):
    field_template_name = "_components/field.html"
